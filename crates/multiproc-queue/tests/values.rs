//! Values that cannot cross: what a queue does with them.

use multiproc_queue::{JoinableQueue, PutError, Queue, TryPutError};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum List {
    End,
    Link(u32, Box<List>),
}

impl List {
    fn of(levels: u32) -> Self {
        (1..levels).fold(Self::End, |list, n| Self::Link(n, list.into()))
    }

    fn levels(&self) -> u32 {
        let mut list = self;
        let mut levels = 1;
        while let Self::Link(_, next) = list {
            list = next;
            levels += 1;
        }
        levels
    }
}

#[test]
fn value_of_the_most_levels_arrives_and_a_deeper_one_comes_back() {
    let queue = Queue::bounded(10).unwrap();
    queue.put(List::of(256)).unwrap();
    let PutError::Encode(back, error) = queue.put(List::of(257)).unwrap_err() else { panic!() };
    assert_eq!(back.levels(), 257);
    assert!(error.reason().contains("at most 256 levels"), "{error}");
    let refused = queue.try_put(List::of(10_000)).unwrap_err();
    assert!(matches!(&refused, TryPutError::Encode(list, _) if list.levels() == 10_000));
    let refused = queue.put_many([List::of(1), List::of(300), List::of(2)]).unwrap_err();
    assert_eq!(refused.put(), 1);
    assert_eq!(refused.into_items(), [List::of(300), List::of(2)]);
    assert_eq!(queue.get_many(9).unwrap(), [List::of(256), List::of(1)]);
}

#[test]
fn task_of_the_most_levels_arrives_and_a_deeper_one_comes_back() {
    let queue = JoinableQueue::bounded(10).unwrap();
    queue.put(List::of(256)).unwrap();
    let PutError::Encode(back, _) = queue.put(List::of(16_000)).unwrap_err() else { panic!() };
    assert_eq!(back.levels(), 16_000);
    assert_eq!(queue.unfinished(), 1);
    let task = queue.get().unwrap();
    assert_eq!(task.levels(), 256);
    task.task_done();
    assert_eq!((queue.unfinished(), queue.dead_letters_len()), (0, 0));
}
