//! A crawler: tasks that add tasks, and a `join` that waits for all of them.

use std::collections::BTreeSet;
use std::error::Error;

use multiproc::queue::FinishAndPutError;
use multiproc::{Process, Producer, RemoteError, TaskConsumer, queue};

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // Unbounded, so that there is room for the links of every page.
    let (pages, work) = queue::unbounded_tasks()?;
    let (found, results) = queue::unbounded_channel()?;
    pages.put("/".to_owned())?;

    for _ in 0..2 {
        Process::spawn(crawl, (work.clone(), found.clone()))?;
    }
    drop((work, found)); // now only the workers can get pages and put results

    // Returns when no page is queued or in progress, or with an error when no worker is left.
    pages.join()?;
    drop(pages); // ends the workers, and with them the results

    // A page whose worker died may have been visited twice.
    let visited = results.iter().collect::<Result<BTreeSet<String>, _>>()?;
    println!("{} pages", visited.len());
    Ok(())
}

fn crawl(pages: TaskConsumer<String>, found: Producer<String>) -> Result<(), RemoteError> {
    for page in pages {
        let page = page?;
        found.put(page.clone())?;
        // In one step, the page is done and its links are queued. A worker that is killed has done
        // both or neither, and `join` does not return in between.
        let links = links(&page);
        page.finish_and_put(links).map_err(FinishAndPutError::into_owned)?;
    }
    Ok(())
}

/// Returns the links of a page, as if it had been loaded: four on each, down to a depth of three.
fn links(page: &str) -> Vec<String> {
    let depth = page.matches('/').count();
    (0..4).filter(|_| depth <= 3).map(|n| format!("{page}{n}/")).collect()
}
