//! A crawler: tasks that add tasks, and a `join` that waits for all of them.

use std::collections::BTreeSet;
use std::error::Error;

use multiproc::{Process, Producer, RemoteError, Shutdown, TaskConsumer, TaskProducer, queue};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // Unbounded: workers that add tasks to a full queue would wait for themselves.
    let (pages, work) = queue::unbounded_tasks()?;
    let (found, results) = queue::unbounded_channel()?;
    pages.put("/".to_owned())?;

    let workers = [
        Process::spawn(crawl, (work.clone(), pages.clone(), found.clone()))?,
        Process::spawn(crawl, (work, pages.clone(), found))?,
    ];
    // Returns when no page is queued or in progress, or with an error when no worker is left.
    pages.join()?;
    pages.shutdown(Shutdown::Drain); // ends the workers, which can put pages themselves

    // A page whose worker died may have been visited twice.
    let visited = results.iter().collect::<Result<BTreeSet<String>, _>>()?;
    println!("{} pages", visited.len());
    for worker in workers {
        if let Err(error) = worker.join_result() {
            eprintln!("{error}"); // the other one did its work
        }
    }
    Ok(())
}

fn crawl(
    work: TaskConsumer<String>,
    pages: TaskProducer<String>,
    found: Producer<String>,
) -> Result<(), RemoteError> {
    for page in work {
        let page = page?;
        found.put(page.clone())?;
        // First the links, and then the end of this page. So `join` does not return between the
        // two. If this process dies between them, the page is visited again.
        pages.put_many(links(&page))?;
        page.task_done();
    }
    Ok(())
}

/// Returns the links of a page, as if it had been loaded: four on each, down to a depth of three.
fn links(page: &str) -> Vec<String> {
    let depth = page.matches('/').count();
    (0..4).filter(|_| depth <= 3).map(|n| format!("{page}{n}/")).collect()
}
