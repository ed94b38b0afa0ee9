//! A shared table: several processes count into one table in shared memory, without a lock.

use std::error::Error;

use multiproc::{Process, Shared};

const WORKERS: u64 = 4;
const THROWS: u64 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let table = Shared::<u64>::new(&[0; 6])?;
    let workers = (0..WORKERS)
        .map(|seed| Process::spawn(throw_dice, (table.clone(), seed)))
        .collect::<Result<Vec<_>, _>>()?;
    for worker in workers {
        // The table works on when a worker is killed, but its counts are not complete then.
        worker.join()?;
    }
    for (side, count) in (1..).zip(table.to_vec()) {
        println!("{side}: {count}");
    }
    Ok(())
}

/// The table is memory that all workers map: no message is sent.
fn throw_dice(table: Shared<u64>, seed: u64) {
    let mut random = seed;
    for _ in 0..THROWS {
        // The generator of Knuth's MMIX. Its high bits are the better ones.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let side = (random >> 33) as usize % 6;
        // One step: a process that is killed has counted a throw, or it has not.
        table.fetch_add(side, 1);
    }
}
