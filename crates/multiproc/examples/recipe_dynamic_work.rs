//! Dynamic work: tasks that add tasks, and a `join` that waits for all of them.

use std::error::Error;

use multiproc::{JoinableQueue, Process, Queue, Shutdown};

const SIZE: usize = 8;

/// The columns of the queens that have been placed so far, one for each row.
type Board = Vec<usize>;

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // Unbounded: workers that add tasks to a full queue would wait for themselves.
    let tasks = JoinableQueue::<Board>::unbounded()?;
    let solutions = Queue::unbounded()?;
    tasks.put(Board::new())?;

    let workers = (0..multiproc::cpu_count())
        .map(|_| Process::spawn(work, (tasks.clone(), solutions.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    tasks.join()?; // returns when no task is queued or in progress
    tasks.shutdown(Shutdown::Drain);
    for worker in workers {
        worker.join()?;
    }
    println!("{SIZE} queens: {} solutions", solutions.len());
    Ok(())
}

fn work((tasks, solutions): (JoinableQueue<Board>, Queue<Board>)) {
    for task in tasks.iter() {
        let task = task.expect("the queue of tasks works");
        if task.len() == SIZE {
            let board = task.clone();
            task.finish_with(&solutions, board).expect("the queue of solutions works");
            continue;
        }
        for column in (0..SIZE).filter(|&column| is_safe(&task, column)) {
            let mut board = task.clone();
            board.push(column);
            tasks.put(board).expect("there is memory for tasks");
        }
        // Only now: before its successors were put, the last task must not count as done.
        task.task_done();
    }
}

/// Whether a queen in `column` of the next row attacks none of the others.
fn is_safe(board: &[usize], column: usize) -> bool {
    let row = board.len();
    board.iter().enumerate().all(|(r, &c)| c != column && c.abs_diff(column) != row - r)
}
