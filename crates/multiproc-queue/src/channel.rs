//! Queues as pairs of typed ends.

use std::io;

use crate::joinable::JoinableQueue;
use crate::queue::{Consumer, Producer, Queue};
use crate::task_ends::{TaskConsumer, TaskProducer};

/// Creates a queue that holds up to `capacity` items, from 1 to 2^32, and returns its two ends.
///
/// The producer only puts and the consumer only gets, so each side is told when the other one has
/// ended. Both can be cloned, and sent to other processes. A process that keeps an end which it
/// does not use hides the end of that side from the others: move the end into the process that
/// works with it, and drop what is left.
///
/// # Errors
///
/// As [`QueueBuilder::build`](crate::QueueBuilder::build).
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, consumer) = multiproc_queue::channel(100)?;
/// producer.put("one".to_owned())?;
/// producer.put("two".to_owned())?;
/// drop(producer); // ends the loop below
/// for item in consumer {
///     println!("{}", item?);
/// }
/// # Ok(())
/// # }
/// ```
#[doc(alias = "sync_channel")]
#[doc(alias = "bounded")]
#[doc(alias = "Pipe")]
pub fn channel<T>(capacity: usize) -> io::Result<(Producer<T>, Consumer<T>)> {
    Queue::builder().capacity(capacity).build_channel()
}

/// Creates a queue that holds any number of items, of up to 8 GiB together, and returns its two
/// ends: see [`channel`].
///
/// # Errors
///
/// As [`QueueBuilder::build`](crate::QueueBuilder::build).
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, consumer) = multiproc_queue::unbounded_channel()?;
/// producer.put_many(0..1000)?;
/// drop(consumer);
/// assert!(producer.put(1000).unwrap_err().is_disconnected());
/// # Ok(())
/// # }
/// ```
#[doc(alias = "unbounded")]
pub fn unbounded_channel<T>() -> io::Result<(Producer<T>, Consumer<T>)> {
    Queue::builder().build_channel()
}

/// Creates a queue of up to `capacity` tasks, from 1 to 2^32, in addition to those in progress, and
/// returns its two ends.
///
/// The process that distributes the tasks keeps the [`TaskProducer`], which also
/// [joins](TaskProducer::join). Its workers get clones of the [`TaskConsumer`], and it drops the
/// original, or keeps it if it may have to start more workers.
///
/// # Errors
///
/// As [`JoinableQueueBuilder::build`](crate::JoinableQueueBuilder::build).
///
/// # Examples
///
/// ```
/// use multiproc_queue::{TaskConsumer, tasks};
///
/// fn work(tasks: TaskConsumer<u32>) {
///     for task in tasks {
///         let task = task.unwrap();
///         // ... do the work ...
///         task.task_done();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, consumer) = tasks(100)?;
/// // Threads here. With the crate `multiproc`: `Process::spawn(work, consumer.clone())`.
/// let workers = [consumer.clone(), consumer].map(|end| std::thread::spawn(|| work(end)));
/// producer.put_many(0..1000)?;
/// producer.join()?; // all are done
/// drop(producer); // ends the workers
/// workers.into_iter().for_each(|worker| worker.join().unwrap());
/// # Ok(())
/// # }
/// ```
pub fn tasks<T>(capacity: usize) -> io::Result<(TaskProducer<T>, TaskConsumer<T>)> {
    JoinableQueue::builder().capacity(capacity).build_tasks()
}

/// Creates a queue of any number of tasks, of up to 8 GiB together, and returns its two ends: see
/// [`tasks`].
///
/// # Errors
///
/// As [`JoinableQueueBuilder::build`](crate::JoinableQueueBuilder::build).
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, consumer) = multiproc_queue::unbounded_tasks()?;
/// producer.put("render".to_owned())?;
/// consumer.get()?.task_done();
/// producer.join()?;
/// # Ok(())
/// # }
/// ```
pub fn unbounded_tasks<T>() -> io::Result<(TaskProducer<T>, TaskConsumer<T>)> {
    JoinableQueue::builder().build_tasks()
}
