//! Large read-only data: one copy in shared memory, which every worker reads in place.

use std::error::Error;
use std::io::Write;

use multiproc::{Process, SharedBytes};

const LEN: usize = 16 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // Written once. (`std::io::copy` into the writer reads a file this way.)
    let mut writer = SharedBytes::builder()?;
    let piece: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for _ in 0..LEN >> 20 {
        writer.write_all(&piece)?;
    }
    // Sealed: from here on the kernel lets no process change the bytes, this one included.
    let data = writer.finish()?;

    let workers = multiproc::cpu_count();
    let workers = (0..workers)
        .map(|n| Process::spawn(sum, (data.clone(), n, workers)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut total = 0;
    for worker in workers {
        total += worker.join()?;
    }
    println!("{} bytes, sum {total}", data.len());
    Ok(())
}

/// Adds up the `n`th part of `parts`. The message had a descriptor in it, and not the bytes.
fn sum((data, n, parts): (SharedBytes, usize, usize)) -> u64 {
    let part = data.len().div_ceil(parts);
    data.chunks(part).nth(n).unwrap_or_default().iter().map(|&byte| u64::from(byte)).sum()
}
