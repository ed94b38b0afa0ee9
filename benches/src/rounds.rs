//! Contestants that take turns, so that what slows the machine down slows all of them down.

use std::env;
use std::time::Duration;

/// How often each has its turn.
const ROUNDS: usize = 21;

/// How long a turn takes, about.
const TURN: Duration = Duration::from_millis(60);

/// Does the work so many times, and says how long that took.
pub type Run<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// Some that do the same work.
pub struct Contest<'a> {
    work: &'static str,
    entries: Vec<(&'static str, Run<'a>)>,
}

impl<'a> Contest<'a> {
    /// In which `reference` is what the others are measured by.
    #[must_use]
    pub fn new(
        work: &'static str,
        reference: &'static str,
        run: impl FnMut(u64) -> Duration + 'a,
    ) -> Self {
        Self { work, entries: vec![(reference, Box::new(run))] }
    }

    /// One more.
    #[must_use]
    pub fn with(mut self, name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        self.entries.push((name, Box::new(run)));
        self
    }

    /// Lets them run, and prints a table: the median time of each, and the median over all rounds of how fast it
    /// was beside the reference.
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
                // Not always after the same one.
                let index = (turn + round) % counts.len();
                let time = (self.entries[index].1)(counts[index]);
                times[index].push(1e9 * time.as_secs_f64() / counts[index] as f64);
            }
        }
        println!("\n| {} | ns | speed / reference |\n|---|---|---|", self.work);
        for ((name, _), own) in self.entries.iter().zip(&times) {
            let ratios = times[0].iter().zip(own).map(|(reference, own)| reference / own);
            println!("| {name} | {:.0} | {:.2} |", median(own.iter().copied()), median(ratios));
        }
    }
}

/// How often the work fits into a turn.
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

/// The one in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
