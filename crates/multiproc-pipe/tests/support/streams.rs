//! Streams of messages, intact and broken.

use std::collections::BTreeMap;

use multiproc_pipe::{Bytes, message};
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// A type that contains every element of the message format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Value {
    Nothing,
    Flag(bool),
    Number(i64),
    Letter(char),
    Text(String),
    Words(Vec<u64>),
    Pair(Box<Value>, Box<Value>),
    List(Vec<Value>),
    Table(BTreeMap<String, Value>),
    Bulk(Bytes),
    Mixed { small: u8, real: Option<f64>, large: u128, nested: Option<Box<Value>> },
}

pub(crate) fn value(random: &mut Random, depth: usize) -> Value {
    let text = |random: &mut Random| "aä\u{10348}"[..random.pick(&[0, 1, 3, 7])].repeat(3);
    let kinds = if depth == 0 { 7 } else { 11 };
    match random.below(kinds) {
        0 => Value::Nothing,
        1 => Value::Flag(random.below(2) == 1),
        2 => Value::Number(random.next().cast_signed() >> random.below(64)),
        3 => Value::Letter(random.pick(&['x', 'ß', '\u{10ffff}'])),
        4 => Value::Text(text(random)),
        5 => Value::Words((0..random.below(6)).map(|_| random.next()).collect()),
        6 => Value::Bulk(Bytes(vec![random.next().to_le_bytes()[0]; random.below(40)])),
        7 => Value::Pair(value(random, depth - 1).into(), value(random, depth - 1).into()),
        8 => Value::List((0..random.below(5)).map(|_| value(random, depth - 1)).collect()),
        9 => {
            let entries = 0..random.below(3);
            Value::Table(entries.map(|_| (text(random), value(random, depth - 1))).collect())
        }
        _ => Value::Mixed {
            small: random.next().to_le_bytes()[0],
            real: (random.below(2) == 0).then_some(0.5),
            large: u128::from(random.next()) << 64,
            nested: (random.below(2) == 0).then(|| value(random, depth - 1).into()),
        },
    }
}

/// Returns the bytes that a connection writes to send these values.
pub(crate) fn stream(values: &[Value]) -> Vec<u8> {
    let mut stream = Vec::new();
    for value in values {
        let mut body = Vec::new();
        message::encode(value, &mut body).unwrap();
        stream.extend_from_slice(&frame(u64::try_from(body.len()).unwrap(), 0, &body));
    }
    stream
}

pub(crate) fn frame(length: u64, descriptors: u32, body: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], &descriptors.to_le_bytes(), body].concat()
}

/// Damages a stream in one of many ways.
pub(crate) fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        bytes.push(random.next().to_le_bytes()[0]);
    }
    let at = random.below(bytes.len());
    let some = random.below((bytes.len() - at).min(40) + 1);
    match random.below(9) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        2 => bytes.insert(at, random.next().to_le_bytes()[0]),
        3 => drop(bytes.drain(at..at + some)),
        4 => {
            let copy = bytes[at..at + some].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => bytes.truncate(at),
        6 => bytes.rotate_left(at),
        7 => {
            let (before, after) = bytes.split_at_mut(at);
            let count = some.min(before.len());
            before[..count].swap_with_slice(&mut after[..count]);
        }
        _ => {
            // A header is often here: this writes an implausible length or count.
            let forged = random.pick(&[u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 40, 70_000, 13]);
            let at = random.pick(&[0, 8, at]).min(bytes.len());
            for (byte, forged) in bytes[at..].iter_mut().zip(forged.to_le_bytes()) {
                *byte = forged;
            }
        }
    }
}
