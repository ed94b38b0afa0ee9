//! Barriers between processes, and the death of parties.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_sync::{Atomic, Barrier, RECHECK};
use multiproc_testkit::{Stopped, is_asleep, stays, until, watchdog};

multiproc::enable_in_tests!();

/// The promised bound: no process waits longer for a dead one.
const RECOVERY: Duration = Duration::from_secs(1);

/// Starts a process that arrives once. It returns whether it is the leader, or `None` for `Broken`.
fn party(barrier: &Barrier) -> Process<Option<bool>> {
    let wait = |barrier: Barrier| barrier.wait().ok().map(|through| through.is_leader());
    Process::spawn(wait, barrier.clone()).unwrap()
}

/// Starts processes that arrive, and waits until they sleep.
fn sleepers<const N: usize>(barrier: &Barrier) -> [Process<Option<bool>>; N] {
    let before = barrier.waiting();
    let children = [0; N].map(|_| party(barrier));
    until(|| barrier.waiting() == before + u32::try_from(N).unwrap());
    until(|| children.iter().all(|child| is_asleep(child.pid())));
    children
}

/// Starts a process that opens the barrier, and waits until it has. It keeps the barrier open until
/// the connection is dropped.
fn bystander(barrier: &Barrier) -> (Process, Connection<(), ()>) {
    let (ours, theirs) = duplex().unwrap();
    let stand_by = |(_barrier, parent): (Barrier, Connection<(), ()>)| {
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(stand_by, (barrier.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

/// Returns the results of the children.
fn join<const N: usize>(children: [Process<Option<bool>>; N]) -> [Option<bool>; N] {
    children.map(|child| child.join().unwrap())
}

/// Asserts that a round of three parties completes, and that the last one is the leader.
fn all_come_through(barrier: &Barrier) {
    assert_eq!(barrier.parties(), 3);
    let children = sleepers::<2>(barrier);
    assert!(barrier.wait().unwrap().is_leader());
    assert_eq!(join(children), [Some(false); 2]);
    assert_eq!(barrier.waiting(), 0);
}

#[test]
fn parties_wait_until_all_have_arrived() {
    let _dog = watchdog();
    const PARTIES: u64 = 5;
    let (barrier, arrived) = (Barrier::new(5).unwrap(), Atomic::new(0).unwrap());
    let walk = |(barrier, arrived): (Barrier, Atomic)| {
        let mut led = Vec::new();
        for round in 0..50 {
            arrived.fetch_add(1);
            led.push(barrier.wait().unwrap().is_leader());
            // All parties of this round have arrived, and in the next one all but this one may
            // have.
            let (least, most) = (PARTIES * (round + 1), PARTIES * (round + 2) - 1);
            let now = arrived.load();
            assert!((least..=most).contains(&now), "{now} in round {round}");
        }
        led
    };
    let spawn = |_| Process::spawn(walk, (barrier.clone(), arrived.clone())).unwrap();
    let led = [0; 5].map(spawn).map(|child| child.join().unwrap());
    for round in 0..50 {
        let leaders = led.iter().filter(|led| led[round]).count();
        assert_eq!(leaders, 1, "in round {round}");
    }
}

#[test]
fn last_party_to_arrive_is_the_leader() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    for _ in 0..3 {
        all_come_through(&barrier);
    }
    let alone = Barrier::new(1).unwrap();
    for _ in 0..3 {
        assert!(alone.wait_timeout(Duration::ZERO).unwrap().is_leader());
    }
}

#[test]
fn number_of_parties_out_of_range_is_invalid_input() {
    for n in [0, Barrier::MAX + 1, u32::MAX] {
        assert_eq!(Barrier::new(n).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(Barrier::new(Barrier::MAX).unwrap().parties(), 65535);
}

#[test]
fn timeout_breaks_the_barrier() {
    let _dog = watchdog();
    let barrier = Barrier::new(4).unwrap();
    let children = sleepers::<2>(&barrier);
    let start = Instant::now();
    barrier.wait_timeout(Duration::from_millis(30)).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(join(children), [None; 2]);
    assert!(barrier.is_broken());
    barrier.wait().unwrap_err();
    barrier.wait_deadline(Instant::now()).unwrap_err();
    assert_eq!(barrier.waiting(), 0);
}

#[test]
fn arrival_before_the_deadline_completes_the_round() {
    let _dog = watchdog();
    let barrier = Barrier::new(2).unwrap();
    let wait = |barrier: Barrier| {
        let first = barrier.wait_timeout(Duration::from_secs(3600)).is_ok();
        first && barrier.wait_timeout(Duration::MAX).is_ok()
    };
    let child = Process::spawn(wait, barrier.clone()).unwrap();
    for _ in 0..2 {
        until(|| barrier.waiting() == 1);
        barrier.wait_deadline(Instant::now()).expect("the party is alone");
    }
    assert!(child.join().unwrap());
}

#[test]
fn abort_breaks_the_barrier_for_waiters_and_newcomers() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let children = sleepers::<2>(&barrier);
    Process::spawn(|barrier: Barrier| barrier.abort(), barrier.clone()).unwrap().join().unwrap();
    assert_eq!(join(children), [None; 2]);
    assert!(barrier.is_broken());
    assert_eq!(join([party(&barrier)]), [None], "a later caller, too");
    barrier.abort();
    barrier.reset();
    assert!(!barrier.is_broken());
    all_come_through(&barrier);
}

#[test]
fn reset_yields_broken_to_waiters() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let children = sleepers::<2>(&barrier);
    barrier.reset();
    assert_eq!((barrier.is_broken(), barrier.waiting()), (false, 0));
    assert_eq!(join(children), [None; 2]);
    barrier.reset(); // no party has arrived, and it is not broken
    all_come_through(&barrier);
}

#[test]
fn waiter_stopped_during_a_reset_gets_broken() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let [child] = sleepers(&barrier);
    let stopped = Stopped::new(child.pid());
    barrier.reset();
    all_come_through(&barrier);
    drop(stopped);
    assert_eq!(join([child]), [None], "its own round was ended by the reset");
    all_come_through(&barrier);
}

#[test]
fn waiter_stopped_during_later_rounds_has_completed_its_own() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let [held_up, other] = sleepers(&barrier);
    let stopped = Stopped::new(held_up.pid());
    assert!(barrier.wait().unwrap().is_leader());
    assert_eq!(join([other]), [Some(false)]);
    for _ in 0..5 {
        all_come_through(&barrier);
    }
    barrier.reset();
    barrier.abort();
    drop(stopped);
    assert_eq!(join([held_up]), [Some(false)], "its own round ended well");
}

#[test]
fn killed_waiting_party_breaks_the_barrier() {
    let _dog = watchdog();
    let barrier = Barrier::new(4).unwrap();
    let [dead, first, second] = sleepers(&barrier);
    let start = Instant::now();
    dead.kill().unwrap();
    assert_eq!(join([first, second]), [None; 2]);
    assert!(start.elapsed() < RECOVERY);
    assert!(barrier.is_broken());
    barrier.wait().unwrap_err();
}

#[test]
fn killed_party_that_has_not_arrived_breaks_the_barrier() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let (dead, _parent) = bystander(&barrier);
    let children = sleepers::<2>(&barrier);
    let start = Instant::now();
    dead.kill().unwrap();
    assert_eq!(join(children), [None; 2]);
    assert!(start.elapsed() < RECOVERY);
    assert!(barrier.is_broken());
}

#[test]
fn newcomer_after_a_death_gets_broken() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let (dead, _parent) = bystander(&barrier);
    dead.kill().unwrap();
    dead.wait();
    let start = Instant::now();
    barrier.wait().unwrap_err();
    assert!(start.elapsed() < RECOVERY);
}

#[test]
fn reset_after_a_death_admits_another_party() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    for _ in 0..3 {
        let [dead, child] = sleepers(&barrier);
        dead.kill().unwrap();
        dead.wait();
        assert_eq!(join([child]), [None]);
        assert!(barrier.is_broken());
        barrier.reset();
        all_come_through(&barrier);
        let children = sleepers::<2>(&barrier);
        assert!(stays(|| barrier.waiting() == 2), "the death is forgotten");
        barrier.wait().unwrap();
        assert_eq!(join(children), [Some(false); 2]);
    }
}

#[test]
fn party_that_drops_its_handle_does_not_break_the_barrier() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let (leaves, parent) = bystander(&barrier);
    let children = sleepers::<2>(&barrier);
    drop(parent);
    leaves.join().unwrap();
    assert!(stays(|| !barrier.is_broken() && barrier.waiting() == 2));
    barrier.wait().expect("it has not died");
    assert_eq!(join(children), [Some(false); 2]);
    barrier.wait_timeout(2 * RECHECK).expect_err("no other party arrives");
}

#[test]
fn party_that_exits_with_the_handle_breaks_the_barrier() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let children = sleepers::<2>(&barrier);
    let start = Instant::now();
    let exit = |_barrier: Barrier| -> () { std::process::exit(0) };
    Process::spawn(exit, barrier.clone()).unwrap().wait();
    assert_eq!(join(children), [None; 2]);
    assert!(start.elapsed() < RECOVERY);
}

#[test]
fn stopped_party_is_waited_for() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let (held_up, parent) = bystander(&barrier);
    let stopped = Stopped::new(held_up.pid());
    let children = sleepers::<2>(&barrier);
    assert!(stays(|| !barrier.is_broken() && barrier.waiting() == 2));
    drop(stopped);
    drop(parent);
    held_up.join().unwrap();
    barrier.wait().unwrap();
    assert_eq!(join(children), [Some(false); 2]);
}

#[test]
fn leader_killed_after_the_round_breaks_only_the_next() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let [first, second] = sleepers(&barrier);
    // Both have arrived, and continue only after the leader is dead.
    let stopped = [Stopped::new(first.pid()), Stopped::new(second.pid())];
    let lead = |barrier: Barrier| -> () {
        let is_leader = barrier.wait().unwrap().is_leader();
        std::process::exit(if is_leader { 7 } else { 1 })
    };
    let leader = Process::spawn(lead, barrier.clone()).unwrap();
    assert_eq!(leader.wait(), multiproc::ExitStatus::Exited(7));
    drop(stopped);
    assert_eq!(join([first, second]), [Some(false); 2]);
    assert!(!barrier.is_broken());
    // That death breaks the next round.
    barrier.wait().unwrap_err();
}

#[test]
fn parties_of_a_round_get_different_indices() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    for _ in 0..3 {
        let wait = |barrier: Barrier| {
            let result = barrier.wait().unwrap();
            (result.index(), result.is_leader())
        };
        let children = [0; 2].map(|_| Process::spawn(wait, barrier.clone()).unwrap());
        let mut results = vec![wait(barrier.clone())];
        results.extend(children.into_iter().map(|child| child.join().unwrap()));
        results.sort_unstable();
        assert_eq!(results, [(0, false), (1, false), (2, true)]);
    }
}

#[test]
fn wait_ends_after_the_default_timeout_in_all_processes() {
    let _dog = watchdog();
    let timeout = Duration::from_millis(20);
    let barrier = Barrier::with_timeout(2, timeout).unwrap();
    assert_eq!((barrier.timeout(), Barrier::new(2).unwrap().timeout()), (Some(timeout), None));
    let wait = |barrier: Barrier| {
        (barrier.timeout() == Some(Duration::from_millis(20)), barrier.wait().is_err())
    };
    let child = Process::spawn(wait, barrier.clone()).unwrap();
    assert_eq!(child.join().unwrap(), (true, true));
    barrier.reset();
    let start = Instant::now();
    barrier.wait().unwrap_err();
    assert!(start.elapsed() >= timeout);
}
