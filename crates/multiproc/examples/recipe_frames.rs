//! Streaming frames: megabytes in memory that is used again, without allocation for each frame.

use std::error::Error;

use multiproc::{Consumer, Process, Producer, Queue, SharedBytes, SharedPool};
use serde::{Deserialize, Serialize};

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;

#[derive(Serialize, Deserialize)]
struct Frame {
    number: u8,
    pixels: SharedBytes,
}

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    // At most three frames wait. A camera must not lag behind: see `capture`.
    let frames = Queue::bounded(3)?;
    let camera = Process::spawn(capture, frames.producer())?;
    let viewer = Process::spawn(view, frames.consumer())?;
    drop(frames);
    let captured = camera.join()?;
    let viewed = viewer.join()?;
    println!("frames captured: 100, sent: {captured}, viewed: {viewed}");
    Ok(())
}

/// Returns the number of frames that were sent.
fn capture(frames: Producer<Frame>) -> u32 {
    let pool = SharedPool::new();
    let mut sent = 0;
    for number in 0..100 {
        // Memory that a viewer has finished with, if there is some.
        let mut pixels = pool.buffer(WIDTH * HEIGHT).expect("there is memory for a frame");
        pixels.fill(number);
        let frame = Frame { number, pixels: pixels.freeze() };
        // A frame for which there is no room is dropped. Use `put` where each frame matters.
        match frames.try_put(frame) {
            Ok(()) => sent += 1,
            Err(error) if error.is_full() => {}
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

/// Returns the number of frames that arrived.
fn view(frames: Consumer<Frame>) -> u32 {
    let mut viewed = 0;
    for frame in frames.iter() {
        let Frame { number, pixels } = frame.expect("the frame arrives");
        assert!(pixels.iter().all(|&pixel| pixel == number), "the frame is whole");
        viewed += 1;
    }
    viewed
}
