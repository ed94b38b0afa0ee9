//! Values that cannot be sent, and how a queue refuses them.

use std::time::{Duration, Instant};

use multiproc_queue::{
    DeathReason, GetError, JoinableQueue, Producer, PutError, PutTimeoutError, Puts, Queue,
    TryPutError,
};
use serde::{Deserialize, Deserializer, Serialize};

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
fn item_with_the_maximum_nesting_arrives_and_a_deeper_one_is_returned() {
    let queue = Queue::bounded(10).unwrap();
    queue.put(List::of(256)).unwrap();
    let PutError::Encode(back, error) = queue.put(List::of(257)).unwrap_err() else { panic!() };
    assert_eq!(back.levels(), 257);
    assert!(error.reason().contains("256"), "{error}");
    let refused = queue.try_put(List::of(10_000)).unwrap_err();
    assert!(matches!(&refused, TryPutError::Encode(list, _) if list.levels() == 10_000));
    let refused = queue.put_many([List::of(1), List::of(300), List::of(2)]).unwrap_err();
    assert_eq!(refused.put(), 1);
    assert_eq!(refused.into_items(), [List::of(300), List::of(2)]);
    assert_eq!(queue.get_many(9).unwrap(), [List::of(256), List::of(1)]);
}

#[test]
fn task_with_the_maximum_nesting_arrives_and_a_deeper_one_is_returned() {
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

/// A number that its `Deserialize` expects to be small.
#[derive(Debug, PartialEq, Serialize)]
struct Small(u32);

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        assert!(number < 10, "out of range: {number}");
        Ok(Self(number))
    }
}

#[test]
fn item_whose_deserialize_panics_is_a_decode_error_and_the_next_one_arrives() {
    let queue = Queue::bounded(10).unwrap();
    queue.put_many([Small(11), Small(1), Small(12), Small(2)]).unwrap();
    let Err(GetError::Decode(error)) = queue.get() else { panic!("it cannot be decoded") };
    assert!(error.reason().contains("out of range: 11"), "{error}");
    let error = queue.get_many(9).unwrap_err();
    assert!(error.error().to_string().contains("out of range: 12"), "{error}");
    assert_eq!(error.into_items(), [Small(1), Small(2)]);
    assert!(queue.is_empty());
}

#[test]
fn task_whose_deserialize_panics_is_a_dead_letter_with_its_message() {
    let queue = JoinableQueue::bounded(10).unwrap();
    queue.put(Small(11)).unwrap();
    queue.put(Small(1)).unwrap();
    let Err(GetError::Decode(error)) = queue.get() else { panic!("it cannot be decoded") };
    assert!(error.reason().contains("out of range: 11"), "{error}");
    assert_eq!((queue.len(), queue.unfinished(), queue.dead_letters_len()), (1, 1, 1));
    let letters = queue.dead_letters().unwrap();
    let [letter] = &letters[..] else { panic!("expected one dead letter") };
    let DeathReason::Undecodable(error) = letter.reason() else { panic!("{letter:?}") };
    assert!(error.reason().contains("out of range: 11"), "{error}");
    let task = queue.get().unwrap();
    assert_eq!(*task, Small(1));
    task.task_done();
}

/// Its `Deserialize` determines the variant from the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(u32),
    Text(String),
}

/// So does this one, by the tag of its variants.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Empty,
    Full { number: u32 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u32,
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, u32>,
}

#[test]
fn item_of_an_undecodable_type_is_returned_by_every_put() {
    let item = || vec![Some(Either::Number(7))];
    let queue = Queue::bounded(10).unwrap();
    // Twice: the second time, the type was checked before.
    for _ in 0..2 {
        let PutError::Encode(back, error) = queue.put(item()).unwrap_err() else { panic!() };
        assert_eq!(back, item());
        assert!(error.reason().contains("`Json`"), "{error}");
    }
    let TryPutError::Encode(back, _) = queue.try_put(item()).unwrap_err() else { panic!() };
    assert_eq!(back, item());
    let refused = queue.put_timeout(item(), Duration::from_secs(1)).unwrap_err();
    assert!(matches!(refused, PutTimeoutError::Encode(back, _) if back == item()));
    let refused = queue.put_deadline(item(), Instant::now()).unwrap_err();
    assert!(matches!(refused, PutTimeoutError::Encode(back, _) if back == item()));
    let refused = queue.put_many([item(), item(), item()]).unwrap_err();
    assert_eq!(refused.put(), 0);
    assert_eq!(refused.into_items(), [item(), item(), item()]);
    queue.put_many([]).unwrap();
    let refused = queue.producer().put(item()).unwrap_err();
    assert!(matches!(refused, PutError::Encode(back, _) if back == item()));
    assert!(queue.is_empty(), "nothing was put");
}

#[test]
fn task_of_an_undecodable_type_is_returned_by_every_put() {
    let queue = JoinableQueue::bounded(10).unwrap();
    let item = || Tagged::Full { number: 1 };
    let PutError::Encode(back, _) = queue.put(item()).unwrap_err() else { panic!() };
    assert_eq!(back, item());
    let TryPutError::Encode(back, _) = queue.try_put(item()).unwrap_err() else { panic!() };
    assert_eq!(back, item());
    let refused = queue.producer().put_many([item(), Tagged::Empty]).unwrap_err();
    assert_eq!(refused.into_items(), [item(), Tagged::Empty]);
    assert_eq!((queue.unfinished(), queue.dead_letters_len()), (0, 0));
}

#[test]
fn item_with_a_flattened_field_is_returned() {
    let queue = Queue::bounded(10).unwrap();
    let item = || Flat { id: 1, rest: [("x".to_owned(), 2)].into() };
    let PutError::Encode(back, _) = queue.put(item()).unwrap_err() else { panic!() };
    assert_eq!(back, item());
    assert!(queue.is_empty(), "nothing was put");
}

#[test]
fn item_of_a_serialize_only_type_can_be_put() {
    fn pass_on<T: Serialize>(handle: &Producer<T>, make: impl Fn() -> T) {
        let moment = Duration::from_secs(1);
        handle.put(make()).unwrap();
        handle.try_put(make()).unwrap();
        handle.put_timeout(make(), moment).unwrap();
        handle.put_deadline(make(), Instant::now() + moment).unwrap();
        handle.put_many([make(), make()]).unwrap();
        Puts::put(handle, make()).unwrap();
    }
    let queue = Queue::<&str>::bounded(10).unwrap();
    pass_on(&queue.producer(), || "text");
    queue.put("more").unwrap();
    assert_eq!(queue.len(), 8);
    let tasks = JoinableQueue::<&str>::bounded(10).unwrap();
    pass_on(&tasks.producer(), || "text");
    tasks.put("more").unwrap();
    assert_eq!(tasks.unfinished(), 8);
}
