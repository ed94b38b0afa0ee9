//! The words of every error. Other tests assert variants.

use super::*;

fn encode_error() -> EncodeError {
    EncodeError::new::<u8>("REASON")
}

fn decode_error() -> DecodeError {
    multiproc_message::decode::<u64>(&[], Vec::new()).unwrap_err()
}

const EMFILE: OsError = OsError(24);
const CORRUPTED: Corrupted = Corrupted { what: "PLACE" };

/// The reasons of all put errors, and what they are called.
fn put_reasons() -> Vec<(Reason, String)> {
    let failed = |text: &str| format!("putting an item failed: {text}");
    vec![
        (Reason::Closed, failed("the queue was shut down, or this handle was closed")),
        (Reason::Disconnected, failed("no consumer is left")),
        (Reason::Encode(encode_error()), failed(&encode_error().to_string())),
        (
            Reason::TooLarge { size: 11, max: 10 },
            failed(
                "it has 11 bytes, and the maximum of this queue is 10 (`max_bytes` of its builder)",
            ),
        ),
        (
            Reason::OutOfMemory,
            failed(
                "the kernel has no memory for it; get some items first, or raise the limit of this \
                 control group",
            ),
        ),
        (Reason::Os(EMFILE), failed(&format!("the kernel refused its descriptors: {EMFILE}"))),
        (Reason::Corrupted(CORRUPTED), failed(&CORRUPTED.to_string())),
    ]
}

#[test]
fn text_of_each_put_error() {
    type Make = fn(Reason) -> Box<dyn Error>;
    let all: [Make; 3] = [
        |reason| PutError::new((), reason).into(),
        |reason| TryPutError::new((), reason).into(),
        |reason| PutTimeoutError::new((), reason).into(),
    ];
    for make in all {
        for (reason, text) in put_reasons() {
            let is_caused =
                matches!(reason, Reason::Encode(_) | Reason::Os(_) | Reason::Corrupted(_));
            let error = make(reason);
            assert_eq!(error.to_string(), text);
            assert_eq!(format!("{error:?}"), text);
            let source = error.source().map(ToString::to_string);
            assert_eq!(source.is_some(), is_caused);
            assert!(source.is_none_or(|source| text.ends_with(&source)));
        }
    }
    assert_eq!(TryPutError::Full(()).to_string(), "the queue is full");
    assert_eq!(
        TryPutError::Stalled(()).to_string(),
        "a stopped process blocks the queue: resume it or kill it"
    );
    assert_eq!(PutTimeoutError::Timeout(()).to_string(), "the queue was full until the deadline");
    let error = PutManyError { put: 2, error: PutError::Disconnected(()), rest: vec![()] };
    assert_eq!(
        error.to_string(),
        "2 items were put; then putting an item failed: no consumer is left"
    );
}

#[test]
fn text_of_each_get_error() {
    let texts = [
        (GetError::Closed, "the queue was shut down, and is empty".to_owned()),
        (GetError::Disconnected, "no producer is left, and the queue is empty".to_owned()),
        (
            GetError::Decode(decode_error()),
            format!("getting an item failed: {}", decode_error()),
        ),
        (
            GetError::Os(EMFILE),
            format!("getting an item failed: its descriptors cannot be opened: {EMFILE}"),
        ),
        (
            GetError::OutOfMemory,
            "getting a task failed: the kernel has no memory for it; finish some first, or raise \
             the limit of this control group"
                .to_owned(),
        ),
        (
            GetError::TooManyTasks,
            "getting a task failed: the maximum number of tasks is in progress; finish some first, \
             or end their processes. (Detached tasks are completed only when all detached tasks of \
             their process are done. `Task::into_parts` returns a receipt that completes its own \
             task at once.)"
                .to_owned(),
        ),
        (GetError::Corrupted(CORRUPTED), format!("getting an item failed: {CORRUPTED}")),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), text);
        let is_caused =
            matches!(error, GetError::Decode(_) | GetError::Os(_) | GetError::Corrupted(_));
        let source = error.source().map(ToString::to_string);
        assert_eq!(source.is_some(), is_caused);
        assert!(source.is_none_or(|source| text.ends_with(&source)));
        assert_eq!(TryGetError::from(error.clone()).to_string(), text);
        assert_eq!(GetTimeoutError::from(error).to_string(), text);
    }
    assert_eq!(TryGetError::Empty.to_string(), "the queue is empty");
    assert_eq!(
        TryGetError::Stalled.to_string(),
        "a stopped process blocks the queue: resume it or kill it"
    );
    assert_eq!(GetTimeoutError::Timeout.to_string(), "the queue was empty until the deadline");
    let error = GetManyError { items: vec![(), ()], error: GetError::Disconnected };
    assert_eq!(
        error.to_string(),
        "no producer is left, and the queue is empty; 2 other items were got"
    );
}

#[test]
fn text_of_each_other_error() {
    assert_eq!(
        CORRUPTED.to_string(),
        "the queue's shared memory is corrupted (invalid: PLACE); drop this queue"
    );
    assert_eq!(EMFILE.to_string(), io::Error::from_raw_os_error(24).to_string());
    assert_eq!(
        OsError::closed().to_string(),
        "a descriptor of the queue was closed by other code in this process (by `close_range`, or \
         by `close` of a number that it does not own): keep the descriptors of multiproc open"
    );
    assert_eq!(
        TooManyTaskDone.to_string(),
        "`task_done` was called more often than this process has detached tasks; a task that was \
         not detached, or has a receipt, is completed by its own `task_done`"
    );
    let in_task = "this thread has a task of the queue that it joins, and would wait for itself: \
                   complete the task first, with `task_done`";
    assert_eq!(JoinTasksError::InTask.to_string(), in_task);
    assert_eq!(JoinTasksTimeoutError::InTask.to_string(), in_task);
    assert_eq!(
        JoinTasksTimeoutError::Timeout.to_string(),
        "some tasks were not done before the deadline"
    );
}
