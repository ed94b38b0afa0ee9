//! The output of the program: tables and JSON.

use std::fmt::Write as _;
use std::io;
use std::time::Instant;

use serde::Serialize;

use crate::{ObjectInfo, ObjectKind};

/// A row of the table: an object, and its rates.
pub(super) struct Row {
    info: ObjectInfo,
    /// Items per second, put and got.
    rates: Option<(f64, f64)>,
}

impl Row {
    pub(super) fn first(info: ObjectInfo) -> Self {
        Self { info, rates: None }
    }

    pub(super) fn since(
        info: ObjectInfo,
        last: Option<&(ObjectInfo, Instant)>,
        now: Instant,
    ) -> Self {
        let rates = last.filter(|_| is_queue(&info)).map(|(last, then)| {
            let seconds = now.duration_since(*then).as_secs_f64().max(1e-3);
            // The count is lower than before if the name was removed and created again.
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            (rate(info.put, last.put), rate(info.got, last.got))
        });
        Self { info, rates }
    }

    fn waits(&self) -> String {
        let ObjectInfo { waiting, waiting_to_put, holder, .. } = self.info;
        let mut words = Vec::new();
        if waiting {
            words.push(if is_queue(&self.info) { "get" } else { "yes" }.to_owned());
        }
        if waiting_to_put {
            words.push("put".to_owned());
        }
        if let Some(pid) = holder {
            words.push(format!("for {pid}"));
        }
        if words.is_empty() { "-".to_owned() } else { words.join(" ") }
    }
}

fn is_queue(info: &ObjectInfo) -> bool {
    matches!(info.kind, ObjectKind::Queue | ObjectKind::JoinableQueue)
}

pub(super) fn as_table(rows: &[Row], with_rates: bool) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut header = vec!["NAME", "KIND", "LENGTH", "CAPACITY"];
    header.extend(if with_rates { ["IN/S", "OUT/S"] } else { ["PUT", "GOT"] });
    header.extend(["MEMBERS", "WAITS", "ITEMS"]);
    let mut table: Vec<Vec<String>> = vec![header.into_iter().map(str::to_owned).collect()];
    for row in rows {
        let info = &row.info;
        let is_queue = is_queue(info);
        let (put, got) = match (with_rates, row.rates) {
            (true, rates) => (
                rates.map(|(put, _)| format!("{put:.0}")),
                rates.map(|(_, got)| format!("{got:.0}")),
            ),
            _ => (is_queue.then(|| info.put.to_string()), is_queue.then(|| info.got.to_string())),
        };
        table.push(vec![
            info.name.clone(),
            info.kind.to_string(),
            info.length.to_string(),
            or_dash(info.capacity.map(|capacity| capacity.to_string())),
            or_dash(put),
            or_dash(got),
            info.members.to_string(),
            row.waits(),
            or_dash(info.item_type.clone()),
        ]);
    }
    let columns = table[0].len();
    let width =
        |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &table {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns one line for each object.
pub(super) fn as_json(rows: &[Row]) -> io::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        name: &'a str,
        kind: String,
        item_type: Option<&'a str>,
        capacity: Option<usize>,
        length: usize,
        members: usize,
        holder: Option<u32>,
        waiting: bool,
        waiting_to_put: bool,
        put: u64,
        got: u64,
        put_per_second: Option<f64>,
        got_per_second: Option<f64>,
        max_bytes: Option<usize>,
        max_attempts: Option<u32>,
    }

    let rounded = |rate: f64| (rate * 10.0).round() / 10.0;
    let mut text = String::new();
    for Row { info, rates } in rows {
        let line = Line {
            name: &info.name,
            kind: info.kind.to_string(),
            item_type: info.item_type.as_deref(),
            capacity: info.capacity,
            length: info.length,
            members: info.members,
            holder: info.holder,
            waiting: info.waiting,
            waiting_to_put: info.waiting_to_put,
            put: info.put,
            got: info.got,
            put_per_second: rates.map(|(put, _)| rounded(put)),
            got_per_second: rates.map(|(_, got)| rounded(got)),
            max_bytes: info.max_bytes,
            max_attempts: info.max_attempts,
        };
        text += &serde_json::to_string(&line)?;
        text.push('\n');
    }
    Ok(text)
}
