//! Compares locks, semaphores and events between processes with those of std (between threads), of
//! POSIX and of the kernel. Then measures the resources of a primitive, the cost of an idle waiter,
//! and the time until a waiter has the lock of a dead holder.

use std::env;
use std::fs;
use std::hint::black_box;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use multiproc::pipe::{Connection, duplex};
use multiproc::sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Mutex, OWNER_RECHECK, RECHECK, RLock,
    Semaphore, Shared,
};
use multiproc::{Lock, Process};
use multiproc_benches::machine;
use multiproc_benches::one_cpu::OneCpu;
use multiproc_benches::posix::{Memory, Posix};
use multiproc_testkit::{Census, is_asleep, until};
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

fn lock_once(lock: &Lock) {
    drop(lock.lock().unwrap());
}

fn posix_lock_once(posix: &Posix) {
    posix.lock();
    posix.unlock();
}

/// An event that one process waits for and another one sets.
trait Flag {
    fn set(&self);
    fn wait(&self);
    fn clear(&self);
}

impl Flag for Event {
    fn set(&self) {
        self.set();
    }

    fn wait(&self) {
        self.wait();
    }

    fn clear(&self) {
        self.clear();
    }
}

/// The minimal event on a futex.
impl Flag for AtomicU32 {
    fn set(&self) {
        self.store(1, Ordering::Release);
        futex::wake(self, futex::Flags::empty(), 1).unwrap();
    }

    fn wait(&self) {
        while self.load(Ordering::Acquire) == 0 {
            // It fails if the word is no longer 0, or by a signal: check again.
            let _ = futex::wait(self, futex::Flags::empty(), 0, None);
        }
    }

    fn clear(&self) {
        self.store(0, Ordering::Release);
    }
}

fn lock_alone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sync/lock and unlock, uncontended");
    let lock = Lock::new().unwrap();
    group.bench_function("multiproc, Lock", |b| b.iter(|| lock_once(black_box(&lock))));
    let mutex = StdMutex::new(());
    group.bench_function("std::sync::Mutex", |b| {
        b.iter(|| drop(black_box(&mutex).lock().unwrap()));
    });
    let posix = Memory::new().map();
    group.bench_function("pthread_mutex, robust, shared", |b| {
        b.iter(|| posix_lock_once(black_box(posix)));
    });
    group.finish();
}

/// A process that does the same as this one, from before the measurement until after its end.
struct Rival {
    process: Process<u64>,
    connection: Connection<(), ()>,
}

impl Rival {
    /// The side of the rival: calls `once` until it is told to stop and returns how often.
    fn run(parent: Connection<(), ()>, once: impl Fn()) -> u64 {
        (0..1000).for_each(|_| once());
        parent.send(()).unwrap();
        let stopped = &AtomicBool::new(false);
        let mut count = 0;
        thread::scope(|scope| {
            // A thread waits for the message, so that the loop needs no system call.
            scope.spawn(move || {
                let _ = parent.recv();
                stopped.store(true, Ordering::Relaxed);
            });
            while !stopped.load(Ordering::Relaxed) {
                once();
                count += 1;
            }
        });
        count
    }

    fn start(spawn: impl FnOnce(Connection<(), ()>) -> Process<u64>) -> Self {
        let (connection, parent) = duplex().unwrap();
        let process = spawn(parent);
        connection.recv().unwrap(); // the rival has begun
        Self { process, connection }
    }

    fn stop(self) -> u64 {
        drop(self.connection);
        self.process.join().unwrap()
    }
}

/// The numbers of acquisitions of both processes. They are printed because a short time may come
/// from starving the rival.
#[derive(Default)]
struct Shares {
    own: u64,
    rivals: u64,
}

impl Shares {
    fn time(&mut self, iterations: u64, rival: Rival, once: impl Fn()) -> Duration {
        let start = Instant::now();
        (0..iterations).for_each(|_| once());
        let time = start.elapsed();
        self.rivals += rival.stop();
        self.own += iterations;
        time
    }

    fn print(&self) {
        let all = self.own + self.rivals;
        // There are no calls if the command line selects another bench.
        if let Some(percent) = (100 * self.own).checked_div(all) {
            println!("{:24}this process acquired the lock in {percent} % of {all} times", "");
        }
    }
}

fn lock_contended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sync/lock and unlock, two processes");
    let mut shares = Shares::default();
    group.bench_function("multiproc, Lock", |b| {
        b.iter_custom(|iterations| {
            let lock = Lock::new().unwrap();
            let run = |(lock, parent): (Lock, _)| Rival::run(parent, || lock_once(&lock));
            let rival = Rival::start(|it| Process::spawn(run, (lock.clone(), it)).unwrap());
            shares.time(iterations, rival, || lock_once(&lock))
        });
    });
    shares.print();
    let mut shares = Shares::default();
    group.bench_function("pthread_mutex, robust, shared", |b| {
        b.iter_custom(|iterations| {
            let memory = Memory::new();
            let posix = memory.map();
            let run = |(memory, parent): (Memory, _)| {
                let posix = memory.map();
                Rival::run(parent, || posix_lock_once(posix))
            };
            let rival = Rival::start(|it| Process::spawn(run, (memory, it)).unwrap());
            shares.time(iterations, rival, || posix_lock_once(posix))
        });
    });
    shares.print();
    group.finish();
}

fn semaphore_alone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sync/acquire and release, uncontended");
    let semaphore = Semaphore::new(1).unwrap();
    group.bench_function("multiproc, Semaphore", |b| {
        b.iter(|| {
            black_box(&semaphore).acquire();
            black_box(&semaphore).release(1).unwrap();
        });
    });
    let permits = BoundedSemaphore::new(1).unwrap();
    group.bench_function("multiproc, BoundedSemaphore", |b| {
        b.iter(|| drop(black_box(&permits).acquire()));
    });
    let posix = Memory::new().map();
    group.bench_function("sem_t, shared", |b| {
        b.iter(|| {
            black_box(posix).wait();
            black_box(posix).post();
        });
    });
    group.finish();
}

/// Returns nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

/// Measures from each `set` until the sleeping child runs.
fn set_and_see(
    rounds: u64,
    flag: &impl Flag,
    spawn: impl FnOnce(Connection<u64, ()>) -> Process,
) -> Duration {
    let (connection, parent) = duplex::<(), u64>().unwrap();
    let child = spawn(parent);
    connection.recv().unwrap(); // from now on it only sleeps
    let round = || {
        // Polls without sleeping, because a sleep would leave cold caches.
        while !is_asleep(child.pid()) {
            thread::yield_now();
        }
        let start = now();
        flag.set();
        connection.recv().unwrap() - start
    };
    let time = Duration::from_nanos((0..rounds).map(|_| round()).sum());
    child.join().unwrap();
    time
}

/// The child's side of [`set_and_see`]: sends the time at which it ran.
fn run_and_tell(rounds: u64, flag: &impl Flag, parent: &Connection<u64, ()>) {
    parent.send(now()).unwrap();
    for _ in 0..rounds {
        flag.wait();
        let runs = now();
        flag.clear();
        parent.send(runs).unwrap();
    }
}

fn event_asleep(criterion: &mut Criterion) {
    let _pinned = OneCpu::pin();
    let mut group = criterion.benchmark_group("sync/set until the sleeping waiter runs, one CPU");
    group.bench_function("multiproc, Event", |b| {
        b.iter_custom(|rounds| {
            let event = Event::new().unwrap();
            set_and_see(rounds, &event, |parent| {
                let child = |(rounds, event, parent): (_, Event, _)| {
                    run_and_tell(rounds, &event, &parent);
                };
                Process::spawn(child, (rounds, event.clone(), parent)).unwrap()
            })
        });
    });
    group.bench_function("bare futex", |b| {
        b.iter_custom(|rounds| {
            let memory = Memory::new();
            set_and_see(rounds, &memory.map().words[0], |parent| {
                let child = |(rounds, memory, parent): (_, Memory, _)| {
                    run_and_tell(rounds, &memory.map().words[0], &parent);
                };
                Process::spawn(child, (rounds, memory, parent)).unwrap()
            })
        });
    });
    group.finish();
}

/// Returns half of the time of `rounds` round trips.
fn ping(
    rounds: u64,
    [there, back]: [&impl Flag; 2],
    spawn: impl FnOnce(u64) -> Process,
) -> Duration {
    let child = spawn(rounds + 1);
    let round = || {
        there.set();
        back.wait();
        back.clear();
    };
    round(); // the child has started
    let start = Instant::now();
    (0..rounds).for_each(|_| round());
    let time = start.elapsed();
    child.join().unwrap();
    time / 2
}

/// The child's side of [`ping`].
fn pong(rounds: u64, [there, back]: [&impl Flag; 2]) {
    for _ in 0..rounds {
        there.wait();
        there.clear();
        back.set();
    }
}

/// Measures half a round trip over two events. Neither side is made to sleep first, so this shows
/// the cost of useless spinning: while one side polls, the other cannot run.
fn event_ping_pong(criterion: &mut Criterion) {
    let _pinned = OneCpu::pin();
    let mut group = criterion.benchmark_group("sync/half a round trip, one CPU");
    group.bench_function("multiproc, Event", |b| {
        b.iter_custom(|rounds| {
            let (there, back) = (Event::new().unwrap(), Event::new().unwrap());
            ping(rounds, [&there, &back], |rounds| {
                let child = |(rounds, there, back): (_, Event, Event)| {
                    pong(rounds, [&there, &back]);
                };
                Process::spawn(child, (rounds, there.clone(), back.clone())).unwrap()
            })
        });
    });
    group.bench_function("bare futex", |b| {
        b.iter_custom(|rounds| {
            let memory = Memory::new();
            ping(rounds, memory.map().words.each_ref(), |rounds| {
                let child = |(rounds, memory): (_, Memory)| {
                    pong(rounds, memory.map().words.each_ref());
                };
                Process::spawn(child, (rounds, memory)).unwrap()
            })
        });
    });
    group.finish();
}

/// Returns the bytes of the library's shared memory that this process has touched.
fn touched() -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let ours = smaps.split_inclusive("VmFlags:").filter(|map| map.contains("memfd:multiproc:"));
    let kib = |map: &str| -> usize {
        let rss = map.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    };
    ours.map(|map| 1024 * kib(map)).sum()
}

/// Prints the resources that a primitive takes after its first use.
fn print_footprint<T>(name: &str, primitive: impl FnOnce() -> T) {
    let (before, touched_before) = (Census::take(), touched());
    let _primitive = primitive();
    let (after, touched_after) = (Census::take(), touched());
    println!(
        "| {name} | {} | {} | {} |",
        after.descriptors - before.descriptors,
        after.mappings - before.mappings,
        (touched_after - touched_before) / rustix::param::page_size(),
    );
}

fn footprint() {
    println!("\n| primitive, used once | descriptors | mapped memfds | touched pages |");
    println!("|---|---|---|---|");
    print_footprint("Lock", || {
        let lock = Lock::new().unwrap();
        drop(lock.lock().unwrap());
        lock
    });
    print_footprint("RLock", || {
        let lock = RLock::new().unwrap();
        drop(lock.lock().unwrap());
        lock
    });
    print_footprint("Mutex<u64>", || {
        let mutex = Mutex::new(1_u64).unwrap();
        *mutex.lock().unwrap() += 1;
        mutex
    });
    print_footprint("Semaphore", || {
        let semaphore = Semaphore::new(1).unwrap();
        semaphore.acquire();
        semaphore
    });
    print_footprint("BoundedSemaphore of 8", || {
        let semaphore = BoundedSemaphore::new(8).unwrap();
        drop(semaphore.acquire());
        semaphore
    });
    print_footprint("Event", || {
        let event = Event::new().unwrap();
        event.set();
        event
    });
    print_footprint("Condition", || {
        let condition = Condition::new().unwrap();
        drop(condition.lock().unwrap());
        condition.notify_all();
        condition
    });
    print_footprint("Barrier of 1", || {
        let barrier = Barrier::new(1).unwrap();
        barrier.wait().unwrap();
        barrier
    });
    print_footprint("Shared of 8 u64", || {
        let table = Shared::new(&[0_u64; 8]).unwrap();
        table.set(7, 1);
        table
    });
    print_footprint("Atomic", || {
        let number = Atomic::new(0).unwrap();
        number.fetch_add(1);
        number
    });
}

/// Returns how long a process has run and how often it was scheduled.
fn run_time(pid: u32) -> (Duration, u64) {
    // The fields are nanoseconds on a CPU, nanoseconds waiting for one, and time slices.
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let numbers: Vec<u64> = stat.split_whitespace().map(|n| n.parse().unwrap()).collect();
    (Duration::from_nanos(numbers[0]), numbers[2])
}

/// Measures the CPU time of a waiting process. Only one process waits at a time: two would wake
/// together, and the second would find a warm CPU.
fn print_idle(name: &str, spawn: impl FnOnce(Connection<(), ()>) -> Process, set: impl FnOnce()) {
    const WATCHED: Duration = Duration::from_secs(5);
    let (connection, parent) = duplex::<(), ()>().unwrap();
    let child = spawn(parent);
    connection.recv().unwrap(); // from now on it only sleeps
    until(|| is_asleep(child.pid()));
    let (time_before, times_before) = run_time(child.pid());
    thread::sleep(WATCHED);
    let (time, times) = run_time(child.pid());
    set();
    child.join().unwrap();
    let percent = 100.0 * (time - time_before).as_secs_f64() / WATCHED.as_secs_f64();
    println!("| {name} | {percent:.4} | {} |", times - times_before);
}

/// Compares an idle waiter with the minimum for the same recheck interval.
fn idle_waiters() {
    println!("\n| waiting for 5 s | % of one CPU | wake-ups |\n|---|---|---|");
    let event = Event::new().unwrap();
    let spawn = |parent| {
        let child = |(event, parent): (Event, Connection<(), ()>)| {
            parent.send(()).unwrap();
            event.wait();
        };
        Process::spawn(child, (event.clone(), parent)).unwrap()
    };
    print_idle("multiproc, Event", spawn, || event.set());

    let memory = Memory::new();
    let [word, _] = &memory.map().words;
    let spawn = |parent| {
        let child = |(memory, parent): (Memory, Connection<(), ()>)| {
            let [word, _] = &memory.map().words;
            let interval = Timespec::try_from(RECHECK).unwrap();
            parent.send(()).unwrap();
            while word.load(Ordering::Acquire) == 0 {
                let _ = futex::wait(word, futex::Flags::empty(), 0, Some(&interval));
            }
        };
        Process::spawn(child, (memory, parent)).unwrap()
    };
    print_idle("bare futex, the same timeout", spawn, || Flag::set(word));
}

/// Takes the lock whenever it is told to, and reports before and after.
fn take_again_and_again((lock, parent): (Lock, Connection<(), ()>)) {
    while parent.recv().is_ok() {
        parent.send(()).unwrap();
        let abandoned = lock.lock().expect_err("the holder was killed");
        parent.send(()).unwrap();
        drop(abandoned.into_guard());
    }
}

fn take_and_keep((lock, parent): (Lock, Connection<(), ()>)) {
    let _guard = lock.lock().unwrap();
    parent.send(()).unwrap();
    let _ = parent.recv();
}

fn recovery() {
    const ROUNDS: u32 = 200;
    let lock = Lock::new().unwrap();
    let (connection, parent) = duplex().unwrap();
    let waiter = Process::spawn(take_again_and_again, (lock.clone(), parent)).unwrap();
    let round = |n: u32| {
        let (holders, parent) = duplex::<(), ()>().unwrap();
        let holder = Process::spawn(take_and_keep, (lock.clone(), parent)).unwrap();
        holders.recv().unwrap();
        connection.send(()).unwrap();
        connection.recv().unwrap(); // from now on it only sleeps in `lock`
        until(|| is_asleep(waiter.pid()));
        // The waiter checks at fixed intervals. Multiples of the golden ratio, modulo one, spread
        // the deaths evenly over them.
        thread::sleep(OWNER_RECHECK.mul_f64((f64::from(n) * 0.618_034).fract()));
        let start = Instant::now();
        holder.kill().unwrap();
        connection.recv().unwrap();
        let time = start.elapsed();
        holder.wait();
        time
    };
    let mut times: Vec<Duration> = (0..ROUNDS).map(round).collect();
    drop(connection);
    waiter.join().unwrap();
    times.sort();
    let milliseconds = |time: Duration| 1000.0 * time.as_secs_f64();
    println!("\n| SIGKILL of the holder until a waiter has the Lock | ms |\n|---|---|");
    println!("| median of {ROUNDS} | {:.1} |", milliseconds(times[times.len() / 2]));
    println!("| worst | {:.1} |", milliseconds(times[times.len() - 1]));
}

fn main() {
    let _runtime = multiproc::init();
    // As in criterion: `cargo bench` passes --bench, `cargo test` does not.
    let has = |wanted: &str| env::args().any(|arg| arg == wanted);
    let is_bench = has("--bench") && !has("--test") && !has("--list");
    if is_bench {
        machine::print();
    }
    let mut criterion = Criterion::default().configure_from_args();
    lock_alone(&mut criterion);
    lock_contended(&mut criterion);
    semaphore_alone(&mut criterion);
    event_asleep(&mut criterion);
    event_ping_pong(&mut criterion);
    criterion.final_summary();
    if is_bench {
        footprint();
        idle_waiters();
        recovery();
    }
}
