//! Processes and threads that repeat an action as often as they are told to.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Receiver, Sender, simplex};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A process that takes orders.
pub struct Other {
    order: Sender<u64>,
    process: Process,
}

impl Other {
    /// Starts the process. `run` receives the orders and passes them to [`obey`].
    pub fn start<A: Serialize + DeserializeOwned>(
        run: impl FnOnce((Receiver<u64>, A)) + 'static,
        argument: A,
    ) -> Self {
        let (orders, order) = simplex().unwrap();
        Self { order, process: Process::spawn(run, (orders, argument)).unwrap() }
    }

    /// Orders `count` repetitions.
    pub fn order(&self, count: u64) {
        self.order.send(count).unwrap();
    }

    /// Orders `count` repetitions, calls `once` as often, and returns how long both took.
    pub fn time(&self, count: u64, mut once: impl FnMut(u64)) -> Duration {
        let start = Instant::now();
        self.order(count);
        (0..count).for_each(&mut once);
        start.elapsed()
    }

    /// Ends the process and waits for its end.
    pub fn stop(self) {
        drop(self.order);
        self.process.join().unwrap();
    }
}

/// Carries out orders in the other process until the orderer closes the pipe. `once` receives the
/// index of the repetition.
pub fn obey(orders: &Receiver<u64>, mut once: impl FnMut(u64)) {
    while let Ok(count) = orders.recv() {
        (0..count).for_each(&mut once);
    }
}

/// A thread that takes orders, like [`Other`].
pub struct OtherThread {
    order: crossbeam_channel::Sender<u64>,
    thread: thread::JoinHandle<()>,
}

impl OtherThread {
    /// Starts the thread. `run` is called with each order.
    pub fn start(run: impl FnMut(u64) + Send + 'static) -> Self {
        let (order, orders) = crossbeam_channel::unbounded::<u64>();
        let thread = thread::spawn(move || orders.iter().for_each(run));
        Self { order, thread }
    }

    /// Orders `count` repetitions.
    pub fn order(&self, count: u64) {
        self.order.send(count).unwrap();
    }

    /// Ends the thread and waits for its end.
    pub fn stop(self) {
        drop(self.order);
        self.thread.join().unwrap();
    }
}
