//! Sending ends of connections in messages, which moves them.

use std::fmt::Display;
use std::os::fd::OwnedFd;

use serde::de::Error as _;
use serde::ser::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::connection::{Connection, Receiver, Sender};
use crate::error::HandshakeError;
use crate::frame_reader::Reader;
use crate::frame_writer::Writer;
use crate::hello::{self, Hello};
use crate::message;
use crate::stream::{Role, Stream};
use multiproc_message::{Bytes, Descriptor, Format};

/// An end in a message: its descriptor, and the bytes between the kernel and its user.
#[derive(Serialize, Deserialize)]
struct WireEnd {
    descriptor: Descriptor,
    /// The bits below.
    flags: u8,
    ahead: Residue,
    unsent: Residue,
}

/// It is one half of a split connection, which shuts its direction down at its end.
const HALF: u8 = 1;
/// Its messages have the format of postcard.
const POSTCARD: u8 = 2;
/// The other side's hello has not been read. Ours precedes the bytes that were read ahead.
const GREETING: u8 = 4;

/// Bytes of the stream and their descriptors.
#[derive(Default, Serialize, Deserialize)]
struct Residue {
    bytes: Bytes,
    descriptors: Vec<Descriptor>,
}

impl From<(Vec<u8>, Vec<OwnedFd>)> for Residue {
    fn from((bytes, descriptors): (Vec<u8>, Vec<OwnedFd>)) -> Self {
        Self { bytes: Bytes(bytes), descriptors: descriptors.into_iter().map(Descriptor).collect() }
    }
}

impl From<Residue> for (Vec<u8>, Vec<OwnedFd>) {
    fn from(kept: Residue) -> Self {
        (kept.bytes.0, kept.descriptors.into_iter().map(OwnedFd::from).collect())
    }
}

fn refuse<E: Error>(why: impl Display) -> E {
    E::custom(format!("a connection cannot be sent: {why}"))
}

impl WireEnd {
    fn pack<S: Serializer>(
        stream: &Stream,
        reader: Option<&Reader>,
        writer: Option<&Writer>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        stream.check().map_err(refuse)?;
        let descriptor = stream.try_clone().map(Descriptor).map_err(refuse)?;
        let mut ahead = reader.map(Reader::pending).transpose().map_err(refuse)?;
        let unsent = writer.map(Writer::pending).transpose().map_err(refuse)?;
        let mut flags = if stream.moved().is_some() { HALF } else { 0 };
        let format = reader.map(Reader::format).or(writer.map(Writer::format));
        if format == Some(Format::Postcard) {
            flags |= POSTCARD;
        }
        if let (Some(ours), Some((bytes, _))) = (reader.and_then(Reader::expected), &mut ahead) {
            flags |= GREETING;
            bytes.splice(..0, ours.to_bytes());
        }
        if let Some(moved) = stream.moved() {
            message::tell_when_sent(moved);
        }
        Self {
            descriptor,
            flags,
            ahead: ahead.unwrap_or_default().into(),
            unsent: unsent.unwrap_or_default().into(),
        }
        .serialize(serializer)
    }

    fn unpack<'de, D: Deserializer<'de>>(
        role: Role,
        deserializer: D,
    ) -> Result<(Stream, Writer, Reader), D::Error> {
        let Self { descriptor, flags, ahead, unsent } = Self::deserialize(deserializer)?;
        if flags & !(HALF | POSTCARD | GREETING) != 0 {
            return Err(D::Error::custom(
                "a connection came with flags that this version does not know",
            ));
        }
        let format = if flags & POSTCARD == 0 { Format::Native } else { Format::Postcard };
        let mut stream = Stream::adopt(descriptor.into(), role).map_err(D::Error::custom)?;
        if flags & HALF != 0 && role != Role::Both && stream.carries_descriptors() {
            stream = stream.into_half(role);
        }
        let (unsent, unsent_descriptors) = unsent.into();
        let (mut ahead, ahead_descriptors) = ahead.into();
        let mut expected = None;
        if flags & GREETING != 0 {
            let ours = ahead.get(..hello::LENGTH).ok_or(HandshakeError::NotAHello);
            expected = Some(ours.and_then(Hello::parse).map_err(D::Error::custom)?);
            ahead.drain(..hello::LENGTH);
        }
        let mut reader = Reader::resume(&ahead, ahead_descriptors, format);
        if let Some(ours) = expected {
            reader = reader.expect(ours);
        }
        Ok((stream, Writer::resume(unsent, unsent_descriptors, format), reader))
    }
}

impl<S, R> Serialize for Connection<S, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        WireEnd::pack(&self.stream, Some(&self.reader), Some(&self.writer), serializer)
    }
}

impl<T> Serialize for Receiver<T> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        WireEnd::pack(&self.stream, Some(&self.reader), None, serializer)
    }
}

impl<T> Serialize for Sender<T> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        WireEnd::pack(&self.stream, None, Some(&self.writer), serializer)
    }
}

impl<'de, S, R> Deserialize<'de> for Connection<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (stream, writer, reader) = WireEnd::unpack(Role::Both, deserializer)?;
        Ok(Self::with(stream, writer, reader))
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (stream, _, reader) = WireEnd::unpack(Role::Receives, deserializer)?;
        Ok(Self::with(stream, reader))
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (stream, writer, _) = WireEnd::unpack(Role::Sends, deserializer)?;
        Ok(Self::with(stream, writer))
    }
}
