//! The functions that `spawn` accepts. Most of these tests are that they compile.

use multiproc_process::{Process, SpawnError, scope};
use multiproc_queue::Queue;
use multiproc_testkit::watchdog;

multiproc_process::enable_in_tests!();

fn none() -> u32 {
    1
}

fn unit((): ()) -> u32 {
    2
}

fn one(n: u32) -> u32 {
    n
}

fn pair((a, b): (u32, u32)) -> u32 {
    10 * a + b
}

fn two(a: u32, b: u32) -> u32 {
    10 * a + b
}

fn single((a,): (u32,)) -> u32 {
    a
}

fn generic<T: Into<u64>>(value: T) -> u64 {
    value.into()
}

fn generic_two<T: Into<u64>, U: Into<u64>>(a: T, b: U) -> u64 {
    10 * a.into() + b.into()
}

#[expect(clippy::too_many_arguments, reason = "the maximum")]
fn eight(a: u8, b: u16, c: u32, d: u64, e: char, f: String, g: bool, h: ()) -> String {
    format!("{a} {b} {c} {d} {e} {f} {g} {h:?}")
}

#[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
struct Point(i32, i32);

fn result<R: serde::de::DeserializeOwned>(process: Result<Process<R>, SpawnError>) -> R {
    process.unwrap().join().unwrap()
}

#[test]
fn named_functions_of_any_arity_are_called() {
    let _dog = watchdog();
    assert_eq!(result(Process::spawn(none, ())), 1);
    assert_eq!(result(Process::spawn(unit, ())), 2);
    assert_eq!(result(Process::spawn(one, 3)), 3);
    assert_eq!(result(Process::spawn(one, (3,))), 3);
    assert_eq!(result(Process::spawn(single, (3,))), 3);
    assert_eq!(result(Process::spawn(pair, (1, 2))), 12);
    assert_eq!(result(Process::spawn(two, (1, 2))), 12);
    assert_eq!(result(Process::spawn(generic, 5_u32)), 5);
    assert_eq!(result(Process::spawn(generic::<u8>, 5)), 5);
    assert_eq!(result(Process::spawn(generic_two, (1_u32, 2_u8))), 12);
    assert_eq!(result(Process::spawn(Point, (1, 2))), Point(1, 2));
    let args = (1, 2, 3, 4, 'x', "y".to_owned(), true, ());
    assert_eq!(result(Process::spawn(eight, args)), "1 2 3 4 x y true ()");
}

#[test]
fn closures_with_types_of_any_arity_are_called() {
    let _dog = watchdog();
    assert_eq!(result(Process::spawn(|| 1, ())), 1);
    assert_eq!(result(Process::spawn(|()| 2, ())), 2);
    assert_eq!(result(Process::spawn(|_: ()| 2, ())), 2);
    assert_eq!(result(Process::spawn(|(a, b): (u32, u32)| 10 * a + b, (1, 2))), 12);
    assert_eq!(result(Process::spawn(|a: u32, b: u32| 10 * a + b, (1, 2))), 12);
    let forever = |_: Queue<u32>| -> () {
        loop {
            std::thread::park();
        }
    };
    let process = Process::spawn(forever, Queue::bounded(1).unwrap()).unwrap();
    process.kill().unwrap();
    process.wait();
    // The type of the result is found from the handle.
    let sums: Vec<Process<u64>> = [vec![1, 2], vec![3]]
        .into_iter()
        .map(|part| Process::spawn(|part: Vec<u64>| part.iter().sum(), part).unwrap())
        .collect();
    assert_eq!(sums.into_iter().map(|sum| sum.join().unwrap()).sum::<u64>(), 6);
}

#[test]
fn parameter_of_a_closure_is_inferred_from_the_argument() {
    let _dog = watchdog();
    let queue = Queue::bounded(1).unwrap();
    queue.put(4_u32).unwrap();
    assert_eq!(result(Process::spawn(|queue| queue.get().unwrap(), queue)), 4);
    assert_eq!(result(Process::spawn(|n| n + 1, 1)), 2);
    assert_eq!(result(Process::spawn(|text| text.len(), "text".to_owned())), 4);
    // Of a tuple only if nothing is asked of its parts before.
    assert_eq!(result(Process::spawn(|(a, b)| a + b, (1, 2))), 3);
    assert_eq!(result(Process::spawn(|a, b| a + b, (1, 2))), 3);
    assert_eq!(result(Process::spawn(|_| 5, (1, 2))), 5);
}

#[test]
fn code_that_is_generic_over_a_function_compiles() {
    let _dog = watchdog();
    fn start<F, A, R>(f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: FnOnce(A) -> R + 'static,
        A: serde::Serialize + serde::de::DeserializeOwned,
        R: serde::Serialize + serde::de::DeserializeOwned,
    {
        Process::spawn(f, args)
    }
    fn start_pair<F: FnOnce((u32, u32)) -> u32 + 'static>(f: F) -> Process<u32> {
        Process::spawn(f, (1, 2)).unwrap()
    }
    fn start_unit(f: impl FnOnce(()) -> u32 + 'static) -> Process<u32> {
        Process::spawn(f, ()).unwrap()
    }
    fn start_none(f: impl Fn() -> u32 + 'static) -> Process<u32> {
        Process::spawn(f, ()).unwrap()
    }
    assert_eq!(result(start(one, 1)), 1);
    assert_eq!(result(start(pair, (1, 2))), 12);
    assert_eq!(result(start(|text| text.len(), "text".to_owned())), 4);
    assert_eq!(start_pair(pair).join(), Ok(12));
    assert_eq!(start_unit(unit).join(), Ok(2));
    assert_eq!(start_none(none).join(), Ok(1));
}

#[test]
fn builders_and_scopes_accept_the_same_functions() {
    let _dog = watchdog();
    assert_eq!(result(Process::builder().spawn(none, ())), 1);
    assert_eq!(result(Process::builder().spawn(two, (1, 2))), 12);
    scope(|s| {
        assert_eq!(result(s.spawn(none, ())), 1);
        assert_eq!(result(s.spawn(two, (1, 2))), 12);
        assert_eq!(result(Process::builder().spawn_scoped(s, two, (3, 4))), 34);
    });
}
