//! Kills each process of each example program at a random moment: the program ends with an error or
//! the right result, and leaves nothing behind.
//!
//! `cargo xtask kills` runs 100 rounds, a plain `cargo test` runs one. (The example `crash_proof`,
//! which kills its own workers all the time, has its test in `examples.rs`.)

use std::time::Duration;
use std::{env, fs, panic, process};

use multiproc_testkit::{KillTest, example, test_program};

/// Tests an example that takes no arguments.
fn kill(name: &str, check: impl Fn(&str)) {
    KillTest::new(example(name), &[]).run(|_, out| check(out));
}

/// Tests an example that prints this if it succeeds.
fn kill_printing(name: &str, expected: &str) {
    kill(name, |out| assert_eq!(out, expected));
}

#[test]
fn word_count_is_right_or_fails() {
    kill("recipe_word_count", |out| {
        assert_eq!(out.lines().count(), 12, "{out}");
        assert!(out.ends_with("  3000 the\n"), "{out}");
    });
}

#[test]
fn pool_survives_its_workers() {
    kill_printing("recipe_pool", "200 results, total 33044\n");
}

#[test]
fn crawler_survives_its_workers() {
    kill_printing("recipe_crawler", "85 pages\n");
}

#[test]
fn pipeline_is_right_or_fails() {
    kill_printing("recipe_pipeline", "4000 words, 10000 letters\n");
}

#[test]
fn clients_get_an_answer_or_learn_that_there_is_none() {
    kill("recipe_request_response", |out| {
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out}");
        for (line, name) in lines.into_iter().zip(["ada", "grace", "edsger"]) {
            let answer = line.strip_prefix(name).unwrap().strip_prefix(": ").unwrap();
            assert!(answer == name.to_uppercase() || answer == "no answer", "{out}");
        }
    });
}

#[test]
fn shared_table_is_right_or_fails() {
    kill("recipe_shared_table", |out| {
        let counts = out.lines().map(|line| line.split_once(": ").unwrap().1);
        assert_eq!(counts.map(|count| count.parse::<u64>().unwrap()).sum::<u64>(), 40_000);
    });
}

#[test]
fn frames_are_whole() {
    kill("recipe_frames", |out| {
        let counts = out.trim_end().strip_prefix("frames captured: 100, sent: ").unwrap();
        let (sent, viewed) = counts.split_once(", viewed: ").unwrap();
        assert_eq!(sent, viewed);
    });
}

#[test]
fn tests_that_spawn_end() {
    // --nocapture: the message of a failed test goes to standard error.
    let args = ["--nocapture", "--test-threads=1"];
    KillTest::new(test_program("recipe_tests"), &args)
        .run(|_, out| assert!(out.contains("test result: ok. "), "{out}"));
}

#[cfg(feature = "manager")]
#[test]
fn two_programs_that_meet_at_a_manager_end() {
    // A test has one run at a time.
    let address = format!("@multiproc-kills-{}", process::id());
    KillTest::new(example("recipe_manager"), &["serve", &address])
        .and(example("recipe_manager"), &["ask", &address, "7", "12"])
        .run(|number, out| match number {
            0 => assert!(out.starts_with("ready\nanswered "), "{out}"),
            _ => assert_eq!(out, "7 squared is 49\n12 squared is 144\n"),
        });
}

#[test]
fn graceful_shutdown_ends() {
    KillTest::new(example("recipe_shutdown"), &[])
        .terminate_after(Duration::from_millis(50))
        .run(|_, out| assert!(out.lines().last().unwrap().starts_with("put "), "{out}"));
}

#[test]
fn limits_are_reported() {
    kill("recipe_limits", |out| {
        let kinds = out.lines().map(|line| line.split_once(": ").unwrap().0);
        assert!(kinds.eq(["memory", "processor time", "wall time"]), "{out}");
    });
}

#[test]
fn one_layer_is_right_or_fails() {
    kill_printing("recipe_one_layer", "the child added 100 numbers: 5050\n");
}

#[test]
fn large_data_is_right_or_fails() {
    kill_printing("recipe_large_data", "16777216 bytes, sum 2139095040\n");
}

#[test]
fn tokio_beside_processes_is_right_or_fails() {
    kill_printing("recipe_tokio", "sum of squares: 338350\nworker: 100 jobs\n");
}

#[test]
fn select_reports_each_worker() {
    kill("recipe_select", |out| {
        assert!(out.lines().last().unwrap().starts_with("total "), "{out}");
        for worker in 0..4 {
            let start = format!("worker-{worker}: ");
            assert_eq!(out.lines().filter(|line| line.starts_with(&start)).count(), 1, "{out}");
        }
    });
}

#[test]
fn queue_is_right_or_fails() {
    kill("queue", |out| {
        let lines: Vec<_> = out.lines().collect();
        assert_eq!((lines.len(), lines[0]), (10, "put 0 into queue"), "{out}");
        assert_eq!(lines[9], "get 4 from queue", "{out}");
    });
}

#[test]
fn pipes_are_right_or_fail() {
    kill("pipe_simplex", |out| assert!(out.ends_with("recv 4 from pipe\n"), "{out}"));
    kill("pipe_duplex", |out| assert!(out.ends_with("left: recv answer 4\n"), "{out}"));
}

#[test]
fn bounded_queue_is_right_or_fails() {
    kill("bounded_queue", |out| assert_eq!(out.lines().count(), 50, "{out}"));
}

#[test]
fn full_queue_is_right_or_fails() {
    kill("full_queue", |out| assert!(out.ends_with("left: 1, 2, 3\n"), "{out}"));
}

#[test]
fn joinable_queue_is_right_or_fails() {
    kill("joinable_queue", |out| assert!(out.ends_with("finished\n"), "{out}"));
}

#[test]
fn pool_of_fixed_workers_is_right_or_fails() {
    kill("pool", |out| assert_eq!(out.lines().count(), 20, "{out}"));
}

#[cfg(feature = "manager")]
#[test]
fn objects_of_a_manager_are_right_or_fail() {
    kill("manager_queue", |out| assert!(out.ends_with("the queue is empty\n"), "{out}"));
    kill("producer_consumer", |out| assert_eq!(out.lines().count(), 13, "{out}"));
}

#[test]
fn digest_survives_its_workers() {
    let folder = env::temp_dir().join(format!("multiproc-kills-digest-{}", process::id()));
    fs::create_dir(&folder).unwrap();
    let mut expected = String::new();
    for n in 10..30 {
        let path = folder.join(n.to_string());
        let content = vec![n; 1 << 20];
        expected += &format!("{}  {}\n", blake3::hash(&content), path.display());
        fs::write(path, content).unwrap();
    }
    let args = ["--workers", "2", folder.to_str().unwrap()];
    let result = panic::catch_unwind(|| {
        KillTest::new(example("digest"), &args).run(|_, out| assert_eq!(out, expected));
    });
    fs::remove_dir_all(&folder).unwrap();
    result.unwrap();
}
