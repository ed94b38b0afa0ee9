//! The methods of handles of a queue of tasks, with their documentation: see
//! [`methods`](crate::methods).

/// The methods of handles that can get tasks.
macro_rules! gets_tasks {
    ($name:ident) => {
        impl<T> $name<T> {
            /// Counts one of the tasks that this process has [detached](Task::detach) as done. They
            /// are completed together, once there was one call for each.
            ///
            /// # Errors
            ///
            /// If there are no more detached tasks than calls so far.
            pub fn task_done(&self) -> Result<(), TooManyTaskDone> {
                if self.inner.detached_done() { Ok(()) } else { Err(TooManyTaskDone) }
            }
        }

        impl<T: DeserializeOwned> $name<T> {
            /// Takes the next task, and waits for one if necessary.
            ///
            /// If another worker is killed, this call delivers its tasks within a second. If no
            /// producer is left and no task can come back, it fails as described for [the end of
            /// the queue](Self#the-end-of-the-queue).
            ///
            /// # Errors
            ///
            /// See [`GetError`]. A task that cannot be decoded becomes a dead letter.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::JoinableQueue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let jobs = JoinableQueue::unbounded()?;
            /// jobs.put("render".to_owned())?;
            /// let task = jobs.get()?;
            /// assert_eq!(*task, "render");
            /// task.task_done();
            /// # Ok(())
            /// # }
            /// ```
            pub fn get(&self) -> Result<Task<T>, GetError> {
                Arc::clone(&self.inner).get_task(Wait::FOREVER)
            }

            /// Takes the next task if there is one now.
            ///
            /// # Errors
            ///
            /// [`Empty`](TryGetError::Empty) if there is none. Otherwise as [`get`](Self::get).
            #[doc(alias = "get_nowait")]
            pub fn try_get(&self) -> Result<Task<T>, TryGetError> {
                Arc::clone(&self.inner).get_task(Wait::Now)
            }

            /// Takes the next task, and waits for one for at most `timeout`, which bounds the whole
            /// call.
            ///
            /// # Errors
            ///
            /// [`Timeout`](GetTimeoutError::Timeout) if there was no task before the timeout.
            /// Otherwise as [`get`](Self::get).
            pub fn get_timeout(&self, timeout: Duration) -> Result<Task<T>, GetTimeoutError> {
                Arc::clone(&self.inner).get_task(Wait::for_at_most(timeout))
            }

            /// Takes the next task, and waits for one until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`get_timeout`](Self::get_timeout).
            pub fn get_deadline(&self, deadline: Instant) -> Result<Task<T>, GetTimeoutError> {
                Arc::clone(&self.inner).get_task(Wait::until(deadline))
            }

            /// Returns an iterator that takes tasks, and waits for each. It ends when
            /// [`get`](Self::get) fails with `Closed` or `Disconnected`.
            ///
            /// A task that cannot be decoded is an `Err`, and does not end the iteration.
            ///
            /// # Examples
            ///
            /// ```
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let (producer, consumer) = multiproc_queue::tasks(10)?;
            /// producer.put_many(1..=3)?;
            /// drop(producer);
            /// for task in consumer.iter() {
            ///     task?.task_done();
            /// }
            /// # Ok(())
            /// # }
            /// ```
            pub fn iter(&self) -> TaskIter<'_, T> {
                TaskIter::new(&self.inner)
            }

            /// Returns an iterator that takes the queued tasks, and does not wait. It ends when
            /// [`try_get`](Self::try_get) finds none. A task that is dropped before it is done is
            /// queued again, so it may come once more.
            pub fn try_iter(&self) -> TryTaskIter<'_, T> {
                TryTaskIter::new(&self.inner)
            }
        }
    };
}

/// The methods of handles that can wait until all tasks are done.
macro_rules! joins {
    ($name:ident) => {
        impl<T> $name<T> {
            /// Waits until all tasks are done: those that were put before, and those that are put
            /// meanwhile. Dead letters do not count.
            ///
            /// If a worker is killed, its tasks are put back and waited for, so another worker must
            /// do them. If tasks are left and no handle that could get them, a
            /// [`TaskProducer`](crate::TaskProducer) is told: at once if the last one was dropped,
            /// and within a second if its process has ended. A handle counts from the moment when
            /// it is made, so also before its process has started. A
            /// [`JoinableQueue`](crate::JoinableQueue) could get the tasks itself, so it waits.
            ///
            /// # Errors
            ///
            /// - [`NoWorkers`](JoinTasksError::NoWorkers) if no handle is left that could get the
            ///   tasks that are left. This is final: a new handle could only be made from another.
            /// - [`InTask`](JoinTasksError::InTask) if this thread has a task of the queue itself:
            ///   it would wait for itself.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::JoinableQueue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let jobs = JoinableQueue::unbounded()?;
            /// jobs.put(1)?;
            /// let worker = {
            ///     let jobs = jobs.clone();
            ///     std::thread::spawn(move || jobs.get().unwrap().task_done())
            /// };
            /// jobs.join()?;
            /// assert_eq!(jobs.unfinished(), 0);
            /// # worker.join().unwrap();
            /// # Ok(())
            /// # }
            /// ```
            pub fn join(&self) -> Result<(), JoinTasksError> {
                match self.inner.join(Deadline::NEVER) {
                    Ok(()) => Ok(()),
                    Err(JoinTasksTimeoutError::InTask) => Err(JoinTasksError::InTask),
                    Err(JoinTasksTimeoutError::NoWorkers { left }) => {
                        Err(JoinTasksError::NoWorkers { left })
                    }
                    Err(JoinTasksTimeoutError::Timeout) => only_a_deadline_gives_up(),
                }
            }

            /// Waits until all tasks are done, as [`join`](Self::join), for at most `timeout`.
            ///
            /// # Errors
            ///
            /// [`Timeout`](JoinTasksTimeoutError::Timeout) if some tasks are not done before the
            /// timeout. Otherwise as [`join`](Self::join).
            pub fn join_timeout(&self, timeout: Duration) -> Result<(), JoinTasksTimeoutError> {
                self.inner.join(Deadline::after(timeout))
            }

            /// Waits until all tasks are done, as [`join`](Self::join), until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`join_timeout`](Self::join_timeout).
            pub fn join_deadline(&self, deadline: Instant) -> Result<(), JoinTasksTimeoutError> {
                self.inner.join(Deadline::at(deadline))
            }
        }
    };
}

/// The methods of every handle of a queue of tasks.
macro_rules! counts_tasks {
    ($name:ident) => {
        impl<T> $name<T> {
            /// Returns the number of tasks that are not done, queued or in progress. It is exact at
            /// one moment during the call. Dead letters do not count.
            #[must_use]
            pub fn unfinished(&self) -> usize {
                self.inner.unfinished()
            }

            /// Returns how often a task is delivered at most, before it becomes a dead letter.
            #[must_use]
            pub fn max_attempts(&self) -> u32 {
                self.inner.store.tasks.map_or(1, |tasks| tasks.max_attempts)
            }

            /// Returns the number of deliveries so far that were not the first one of their task.
            #[must_use]
            pub fn redelivered(&self) -> u64 {
                self.inner.redelivered()
            }

            /// Returns the number of tasks that have become dead letters so far, including those
            /// that are none any more.
            #[must_use]
            pub fn died(&self) -> u64 {
                self.inner.died()
            }

            /// Returns the current number of dead letters.
            #[must_use]
            pub fn dead_letters_len(&self) -> usize {
                self.inner.dead()
            }

            /// Returns a source of [`wait`](multiproc_pipe::wait) that is ready while there is a
            /// dead letter that [`dead_letters`](Self::dead_letters) has not returned through this
            /// handle.
            ///
            /// With it, a loop that waits for results, for the ends of workers and for dead letters
            /// needs no timeout. While a process waits for the source, it puts the tasks of killed
            /// workers back itself: the source is ready within a second after a worker was killed
            /// with a task in its last attempt, even if no process gets or joins.
            ///
            /// A dead letter that was returned and stays one does not make the source ready again,
            /// so the loop does not spin. A letter that was [put again](DeadLetter::put_again) and
            /// died again does.
            ///
            /// The queue itself is a source as well, which is ready when a task can be got. It is
            /// also reported once for each new dead letter.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_pipe::{Source, wait};
            /// use multiproc_queue::{JoinableQueue, Queue};
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let jobs = JoinableQueue::builder().max_attempts(1).build()?;
            /// let results = Queue::<u32>::unbounded()?;
            /// jobs.put_many([1, 2, 3])?;
            /// let worker = {
            ///     let (jobs, results) = (jobs.clone(), results.clone());
            ///     std::thread::spawn(move || {
            ///         for task in jobs.iter().map(Result::unwrap).take(3) {
            ///             match *task {
            ///                 2 => drop(task), // in its last attempt
            ///                 n => task.finish_with(&results, n * n).unwrap(),
            ///             }
            ///         }
            ///     })
            /// };
            /// let letters = jobs.dead_letter_source();
            /// let (mut open, mut failed) = (3, Vec::new());
            /// while open > 0 {
            ///     wait([&results as &dyn Source, &letters], None)?;
            ///     open -= results.try_get_many(10)?.len();
            ///     for letter in jobs.dead_letters()? {
            ///         open -= 1;
            ///         failed.extend(letter.take());
            ///     }
            /// }
            /// assert_eq!(failed, [2]);
            /// # worker.join().unwrap();
            /// # Ok(())
            /// # }
            /// ```
            #[must_use]
            pub fn dead_letter_source(&self) -> DeadLetterSource<T> {
                DeadLetterSource::of(&self.inner)
            }
        }

        impl<T: DeserializeOwned> $name<T> {
            /// Returns the dead letters, oldest first: tasks that are not delivered any more. They
            /// can be examined, [taken out](DeadLetter::take) or [delivered
            /// again](DeadLetter::put_again).
            ///
            /// While a [`DeadLetter`] exists, no other process sees it. If this process is killed,
            /// it is a dead letter as before.
            ///
            /// First puts the tasks of killed workers back. So a process that has noticed the death
            /// of a worker finds the task that has killed it.
            ///
            /// One call returns dead letters of up to 64 MiB together, and one more that exceeds
            /// this. While those are kept, or after they were taken out, the next call returns the
            /// following ones.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::JoinableQueue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let jobs = JoinableQueue::builder().max_attempts(2).build()?;
            /// jobs.put(13)?;
            /// drop(jobs.get()?); // first delivery
            /// drop(jobs.get()?); // second and last delivery
            /// assert!(jobs.try_get().unwrap_err().is_empty());
            /// jobs.join()?;
            /// let letters = jobs.dead_letters()?;
            /// assert_eq!((letters[0].item(), letters[0].attempts()), (Some(&13), 2));
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// If the queue is corrupted.
            pub fn dead_letters(&self) -> Result<Vec<DeadLetter<T>>, GetError> {
                DeadLetter::first(&self.inner)
            }
        }
    };
}

pub(crate) use {counts_tasks, gets_tasks, joins};
