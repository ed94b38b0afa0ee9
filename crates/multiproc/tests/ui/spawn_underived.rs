use multiproc::Process;

struct Job {
    id: u32,
}

fn work(jobs: Vec<Job>) -> u32 {
    jobs.iter().map(|job| job.id).sum()
}

fn main() {
    let _runtime = multiproc::init();
    let _ = Process::spawn(work, vec![Job { id: 1 }]);
}
