//! Contestants that take turns, so that a slow phase of the machine affects all of them.

use std::env;
use std::time::Duration;

/// The number of turns of each contestant.
const ROUNDS: usize = 21;

/// The approximate length of a turn.
const TURN: Duration = Duration::from_millis(60);

/// Repeats the work and returns how long that took.
pub type Run<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// Contestants that do the same work.
pub struct Contest<'a> {
    work: &'static str,
    entries: Vec<(&'static str, Run<'a>)>,
}

impl<'a> Contest<'a> {
    /// Creates a contest in which the others are compared with `reference`.
    #[must_use]
    pub fn new(
        work: &'static str,
        reference: &'static str,
        run: impl FnMut(u64) -> Duration + 'a,
    ) -> Self {
        Self { work, entries: vec![(reference, Box::new(run))] }
    }

    /// Adds a contestant.
    #[must_use]
    pub fn with(mut self, name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        self.entries.push((name, Box::new(run)));
        self
    }

    /// Runs the contest and prints a table: the median time of each contestant, and the median over
    /// all rounds of its speed relative to the reference.
    pub fn run(mut self) {
        let is_test = env::args().any(|arg| arg == "--test");
        let counts: Vec<u64> = self
            .entries
            .iter_mut()
            .map(|(_, run)| if is_test { 1 } else { calibrate(run) })
            .collect();
        let rounds = if is_test { 1 } else { ROUNDS };
        let mut times = vec![Vec::new(); self.entries.len()];
        for round in 0..rounds {
            for turn in 0..counts.len() {
                // The order changes, so that no contestant always follows the same one.
                let index = (turn + round) % counts.len();
                let time = (self.entries[index].1)(counts[index]);
                times[index].push(1e9 * time.as_secs_f64() / counts[index] as f64);
            }
        }
        println!("\n| {} | ns | relative speed |\n|---|---|---|", self.work);
        for ((name, _), own) in self.entries.iter().zip(&times) {
            let ratios = times[0].iter().zip(own).map(|(reference, own)| reference / own);
            println!("| {name} | {:.0} | {:.2} |", median(own.iter().copied()), median(ratios));
        }
    }
}

/// Returns how often the work fits into a turn.
fn calibrate(run: &mut Run<'_>) -> u64 {
    let mut count = 1;
    loop {
        let time = run(count);
        if 2 * time >= TURN {
            let fits = u128::from(count) * TURN.as_nanos() / time.as_nanos();
            return u64::try_from(fits.max(1)).unwrap();
        }
        count *= 2;
    }
}

/// Returns the median.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
