//! Values in shared memory: with a lock (`Mutex`), without (`Shared`), and numbers (`Atomic`).

use std::fmt::Debug;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};
use multiproc::Process;
use multiproc::pipe::{Connection, Descriptor, RecvError, duplex};
use multiproc_sync::{Atomic, LockTimeoutError, Mutex, RwLock, Shared, TryLockError};
use multiproc_testkit::{is_asleep, until, watchdog};
use serde::Serialize;
use serde::de::DeserializeOwned;

multiproc::enable_in_tests!();

/// The promised bound: no process waits longer for a dead one.
const RECOVERY: Duration = Duration::from_secs(1);

/// Starts a process that locks the mutex and changes its copy of the value, and waits until it has.
/// It holds the mutex until the connection is dropped.
fn holder(mutex: &Mutex<u64>) -> (Process, Connection<(), ()>) {
    let (ours, theirs) = duplex().unwrap();
    let hold = |(mutex, parent): (Mutex<u64>, Connection<(), ()>)| {
        let mut guard = mutex.lock().unwrap_or_else(|abandoned| abandoned.into_guard());
        *guard = 666;
        parent.send(()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(hold, (mutex.clone(), theirs)).unwrap();
    ours.recv().unwrap();
    (child, ours)
}

fn kill(child: &Process) {
    child.kill().unwrap();
    child.wait();
}

/// Returns the error of receiving `sent` as a `T`.
fn receive_as<T: DeserializeOwned + Debug>(sent: impl Serialize + DeserializeOwned) -> RecvError {
    let (left, right) = duplex::<_, ()>().unwrap();
    left.send(sent).unwrap_or_else(|error| panic!("{error}"));
    right.retype::<(), T>().recv().unwrap_err()
}

fn panics<R: Debug>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn concurrent_additions_are_not_lost() {
    let _dog = watchdog();
    let number = Mutex::new(0u64).unwrap();
    let add = |number: Mutex<u64>| {
        for _ in 0..2000 {
            *number.lock().unwrap() += 1;
        }
    };
    let children = [0; 4].map(|_| Process::spawn(add, number.clone()).unwrap());
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(*number.lock().unwrap(), 8000);
}

#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Account {
    balance: i64,
    rate: f32,
    owner: [u8; 4],
}

#[test]
fn struct_in_a_mutex_changes_as_a_whole() {
    let _dog = watchdog();
    let new = Account { balance: -1, rate: 0.5, owner: *b"Anna" };
    let account = Mutex::new(new).unwrap();
    let child = Process::spawn(
        |account: Mutex<Account>| {
            let mut guard = account.lock().unwrap();
            let found = (guard.balance, guard.rate, guard.owner);
            *guard = Account { balance: i64::MIN, rate: -1e9, owner: *b"Otto" };
            found
        },
        account.clone(),
    );
    assert_eq!(child.unwrap().join().unwrap(), (-1, 0.5, *b"Anna"));
    let changed = Account { balance: i64::MIN, rate: -1e9, owner: *b"Otto" };
    assert_eq!(*account.lock().unwrap(), changed);
}

#[test]
fn guard_that_was_only_read_writes_nothing_back() {
    const OLD: u64 = 0x0123_4567_89ab_cdef;
    const NEW: u64 = 0xfedc_ba98_7654_3210;
    let mutex = Mutex::new(OLD).unwrap();
    let (left, right) = duplex::<_, ()>().unwrap();
    left.send(mutex.clone()).unwrap();
    // Writing into the file writes into the memory of all processes that map it.
    let file = File::from(right.retype::<(), Descriptor>().recv().unwrap());
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let place = bytes.windows(8).position(|bytes| bytes == OLD.to_le_bytes()).unwrap() as u64;

    let guard = mutex.lock().unwrap();
    assert_eq!(*guard, OLD);
    file.write_all_at(&NEW.to_le_bytes(), place).unwrap();
    assert_eq!(*guard, OLD, "the guard has a copy");
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), NEW, "nothing was written back");

    let mut guard = mutex.lock().unwrap();
    *guard = NEW; // the same value, but it is not compared
    file.write_all_at(&OLD.to_le_bytes(), place).unwrap();
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), NEW, "what was assigned was written back");
}

#[test]
fn killed_holder_leaves_the_value_unchanged() {
    let _dog = watchdog();
    let mutex = Mutex::new(5u64).unwrap();
    let (child, _parent) = holder(&mutex);
    assert!(mutex.try_lock().unwrap_err().is_would_block());
    assert!(mutex.lock_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());

    kill(&child);
    let start = Instant::now();
    let abandoned = mutex.lock().unwrap_err();
    assert!(start.elapsed() < RECOVERY);
    assert_eq!(**abandoned.guard(), 5);
    *abandoned.into_guard() += 1;
    assert_eq!(*mutex.lock().expect("it is repaired"), 6);
}

#[test]
fn mutex_stays_abandoned_without_into_guard() {
    let _dog = watchdog();
    let mutex = Mutex::new(5u64).unwrap();
    let (child, _parent) = holder(&mutex);
    kill(&child);
    drop(mutex.lock().unwrap_err());
    assert!(matches!(mutex.try_lock(), Err(TryLockError::Abandoned(_))));
    assert!(mutex.lock_deadline(Instant::now()).unwrap_err().is_abandoned());
    let again = mutex.lock_timeout(RECOVERY);
    let Err(LockTimeoutError::Abandoned(abandoned)) = again else { panic!("{again:?}") };
    *abandoned.into_guard() = 7;
    assert_eq!(*mutex.try_lock().unwrap(), 7);
}

#[test]
fn sleeping_waiter_gets_the_value_of_the_holder() {
    let _dog = watchdog();
    let mutex = Mutex::new(5u64).unwrap();
    let (child, parent) = holder(&mutex);
    let waiter = Process::spawn(|mutex: Mutex<u64>| *mutex.lock().unwrap(), mutex).unwrap();
    until(|| is_asleep(waiter.pid()));
    drop(parent);
    assert_eq!(waiter.join().unwrap(), 666);
    child.join().unwrap();
}

#[derive(Debug, Clone, Copy, PartialEq, CheckedBitPattern, NoUninit)]
#[repr(u32)]
enum Light {
    Red = 0x1d0c_0b0a,
    Green = 0x2d0c_0b0a,
}

/// Opens the file of a lock, and returns it with the place of these bytes.
fn open_at<H>(lock: &H, bytes: &[u8]) -> (File, u64)
where
    H: Serialize + DeserializeOwned + Clone,
{
    let (left, right) = duplex::<_, ()>().unwrap();
    left.send(lock.clone()).unwrap_or_else(|error| panic!("{error}"));
    // Writing into the file writes into the memory of all processes that map it.
    let file = File::from(right.retype::<(), Descriptor>().recv().unwrap());
    let mut all = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut all, 0).unwrap();
    let place = all.windows(bytes.len()).position(|window| window == bytes).unwrap();
    (file, place as u64)
}

#[test]
fn mutex_of_an_enum_is_changed_by_another_process() {
    let _dog = watchdog();
    let light = Mutex::new(Light::Red).unwrap();
    let turn = |light: Mutex<Light>| *light.lock().unwrap() = Light::Green;
    Process::spawn(turn, light.clone()).unwrap().join().unwrap();
    assert_eq!(*light.lock().unwrap(), Light::Green);
    let flag = Mutex::new(false).unwrap();
    *flag.lock().unwrap() = true;
    assert!(*flag.lock().unwrap());
}

#[test]
fn bytes_that_are_no_value_abandon_the_mutex_until_it_is_repaired() {
    let _dog = watchdog();
    let light = Mutex::new(Light::Red).unwrap();
    let (file, place) = open_at(&light, &(Light::Red as u32).to_le_bytes());
    *light.lock().unwrap() = Light::Green;
    file.write_all_at(&7u32.to_le_bytes(), place).unwrap();

    let abandoned = light.lock().unwrap_err();
    assert_eq!(**abandoned.guard(), Light::Red, "the value when it was opened");
    drop(abandoned);
    assert!(light.try_lock().unwrap_err().is_abandoned(), "nobody has repaired it");
    let error = receive_as::<Mutex<Light>>(light.clone());
    assert!(matches!(error, RecvError::Decode(_)), "{error}");

    drop(light.lock().unwrap_err().into_guard());
    assert_eq!(*light.lock().unwrap(), Light::Red, "it was written back");
}

/// A reader accepts the value for itself, and a writer writes it back.
#[test]
fn bytes_that_are_no_value_abandon_the_read_write_lock_until_a_writer_repairs_it() {
    let _dog = watchdog();
    let light = RwLock::new(Light::Red).unwrap();
    let (file, place) = open_at(&light, &(Light::Red as u32).to_le_bytes());
    *light.write().unwrap() = Light::Green;
    assert_eq!(*light.read().unwrap(), Light::Green);
    file.write_all_at(&7u32.to_le_bytes(), place).unwrap();

    let accepted = light.read().unwrap_err().into_guard();
    assert_eq!(*accepted, Light::Red, "the value when it was opened");
    drop(accepted);
    assert!(light.try_read().unwrap_err().is_abandoned(), "a reader repairs nothing");
    drop(light.write().unwrap_err());
    let error = receive_as::<RwLock<Light>>(light.clone());
    assert!(matches!(error, RecvError::Decode(_)), "{error}");

    drop(light.write().unwrap_err().into_guard());
    assert_eq!(*light.read().unwrap(), Light::Red, "it was written back");
}

#[test]
fn mutex_of_another_size_is_refused() {
    let error = receive_as::<Mutex<[u8; 24]>>(Mutex::new(0u64).unwrap());
    assert!(matches!(error, RecvError::Decode(_)), "{error}");
    let error = receive_as::<Mutex<u64>>(Mutex::new([0u8; 4096]).unwrap());
    assert!(matches!(error, RecvError::Decode(_)), "{error}");
}

/// An array type that is `Pod`: plain arrays are only for some lengths.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Picture {
    rows: [[u8; 1024]; 1024],
}

#[test]
fn large_value_is_written_back() {
    let _dog = watchdog();
    // Guards contain the value and are moved, which needs a larger stack.
    fn with_room<R: Send>(f: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(64 << 20);
            thread.spawn_scoped(scope, f).unwrap().join().unwrap()
        })
    }
    let sum = |picture: &Picture| picture.rows.as_flattened().iter().map(|&b| u64::from(b)).sum();
    let mutex = with_room(|| Mutex::new(Picture { rows: [[1; 1024]; 1024] }).unwrap());
    let child = Process::spawn(
        |mutex: Mutex<Picture>| {
            with_room(|| mutex.lock().unwrap().rows[1023].fill(3));
        },
        mutex.clone(),
    );
    child.unwrap().join().unwrap();
    let total: u64 = with_room(|| sum(&mutex.lock().unwrap()));
    assert_eq!(total, 1024 * 1023 + 3 * 1024);
}

#[test]
fn table_is_shared_between_processes() {
    let _dog = watchdog();
    let table = Shared::new(&[1u32, 2, 3, 4, 5]).unwrap();
    assert_eq!((table.len(), table.is_empty()), (5, false));
    let child = Process::spawn(
        |table: Shared<u32>| {
            let mut found = [0; 3];
            table.read(1, &mut found);
            table.set(0, 10);
            table.write(3, &[40, 50]);
            (table.len(), table.get(4), found)
        },
        table.clone(),
    );
    assert_eq!(child.unwrap().join().unwrap(), (5, 50, [2, 3, 4]));
    assert_eq!(table.to_vec(), [10, 2, 3, 40, 50]);
}

#[test]
fn large_and_empty_tables_can_be_created() {
    let _dog = watchdog();
    let table = Shared::new(&vec![1.5f64; 1 << 20]).unwrap();
    let child = Process::spawn(
        |table: Shared<f64>| {
            table.set((1 << 20) - 1, 2.5);
            table.to_vec().iter().sum::<f64>()
        },
        table.clone(),
    );
    let sum = 1.5 * f64::from(1 << 20) + 1.0;
    assert_eq!(child.unwrap().join().unwrap(), sum);
    assert_eq!(table.get((1 << 20) - 1), 2.5);

    let empty = Shared::<u64>::new(&[]).unwrap();
    assert!(empty.is_empty() && empty.to_vec().is_empty());
    let child = Process::spawn(|empty: Shared<u64>| empty.len(), empty.clone());
    assert_eq!(child.unwrap().join().unwrap(), 0);
}

#[test]
fn index_out_of_bounds_panics() {
    let table = Shared::new(&[1u32, 2, 3]).unwrap();
    assert!(panics(|| table.get(3)));
    assert!(panics(|| table.set(9, 0)));
    assert!(panics(|| table.read(1, &mut [0; 3])));
    assert!(panics(|| table.write(usize::MAX, &[0; 2])));
    table.read(3, &mut []);
    table.write(3, &[]);
    assert_eq!(table.to_vec(), [1, 2, 3], "nothing was written");
}

#[test]
fn table_of_values_of_another_size_is_refused() {
    let error = receive_as::<Shared<[u8; 16]>>(Shared::new(&[1u64, 2, 3]).unwrap());
    assert!(matches!(error, RecvError::Decode(_)), "{error}");
}

#[test]
fn table_of_values_of_size_0_panics() {
    assert!(panics(|| Shared::new(&[(); 3])));
}

#[test]
fn concurrent_fetch_add_is_not_lost() {
    let _dog = watchdog();
    let number = Atomic::new(u64::MAX).unwrap();
    let add = |number: Atomic| {
        for _ in 0..50_000 {
            number.fetch_add(3);
            number.fetch_sub(1);
        }
    };
    let children = [0; 4].map(|_| Process::spawn(add, number.clone()).unwrap());
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(number.load(), 4 * 50_000 * 2 - 1, "it started at -1, so to say");
}

#[test]
fn exactly_one_of_many_compare_exchanges_succeeds() {
    let _dog = watchdog();
    let number = Atomic::new(0).unwrap();
    // A process that finds `n` stores `n + 1`, so exactly one succeeds for each number.
    let count = |number: Atomic| {
        let mut mine = 0u64;
        loop {
            match number.load() {
                20_000 => return mine,
                n => mine += u64::from(number.compare_exchange(n, n + 1) == Ok(n)),
            }
        }
    };
    let children = [0; 4].map(|_| Process::spawn(count, number.clone()).unwrap());
    let counts = children.map(|child| child.join().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), 20_000, "{counts:?}");
    assert_eq!(number.compare_exchange(5, 6), Err(20_000));
    assert_eq!(number.swap(7), 20_000);
    number.store(8);
    assert_eq!(number.load(), 8);
}

#[test]
fn atomic_additions_to_a_table_are_not_lost() {
    let _dog = watchdog();
    let table = Shared::new(&[0i64, -5]).unwrap();
    let add = |table: Shared<i64>| {
        for _ in 0..2000 {
            table.fetch_add(0, 1);
            table.fetch_sub(1, 1);
        }
    };
    let children = [0; 3].map(|_| Process::spawn(add, table.clone()).unwrap());
    children.into_iter().for_each(|child| child.join().unwrap());
    assert_eq!(table.to_vec(), [6000, -6005]);
}

#[test]
fn atomic_operations_of_a_table_return_the_value_before() {
    let table = Shared::new(&[-1i32; 2]).unwrap();
    assert_eq!((table.load(0), table.swap(0, 3)), (-1, -1));
    assert_eq!((table.fetch_max(0, -7), table.load(0)), (3, 3), "compared as signed numbers");
    assert_eq!((table.fetch_min(0, -7), table.load(0)), (3, -7));
    assert_eq!(table.compare_exchange(0, 3, 4), Err(-7));
    assert_eq!(table.compare_exchange(0, -7, i32::MAX), Ok(-7));
    assert_eq!((table.fetch_add(0, 1), table.load(0)), (i32::MAX, i32::MIN), "wraps around");
    assert_eq!(table.fetch_update(0, |_| None), Err(i32::MIN));
    table.store(1, 9);
    assert_eq!(table.to_vec(), [i32::MIN, 9]);
    assert!(panics(|| table.load(2)));
    let unsigned = Shared::new(&[u32::MAX]).unwrap();
    assert_eq!((unsigned.fetch_add(0, 2), unsigned.load(0)), (u32::MAX, 1));
}
