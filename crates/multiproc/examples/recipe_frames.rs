//! Streaming frames: megabytes in memory that is used again, without allocation for each frame.

use std::error::Error;

use multiproc::{Consumer, Process, Producer, RemoteError, SharedBytes, SharedPool, queue};
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
    let (frames_in, frames) = queue::channel(3)?;
    let camera = Process::spawn(capture, frames_in)?;
    let viewer = Process::spawn(view, frames)?;
    let captured = camera.join_result()?;
    let viewed = viewer.join_result()?;
    println!("frames captured: 100, sent: {captured}, viewed: {viewed}");
    Ok(())
}

/// Returns the number of frames that were sent.
fn capture(frames: Producer<Frame>) -> Result<u32, RemoteError> {
    let pool = SharedPool::new();
    let mut sent = 0;
    for number in 0..100 {
        // Memory that a viewer has finished with, if there is some.
        let mut pixels = pool.buffer(WIDTH * HEIGHT)?;
        pixels.fill(number);
        let frame = Frame { number, pixels: pixels.freeze() };
        // A frame for which there is no room is dropped. Use `put` where each frame matters.
        match frames.try_put(frame) {
            Ok(()) => sent += 1,
            Err(error) if error.is_full() => {}
            Err(error) => return Err(error.into()), // the viewer has died
        }
    }
    Ok(sent)
}

/// Returns the number of frames that arrived.
fn view(frames: Consumer<Frame>) -> Result<u32, RemoteError> {
    let mut viewed = 0;
    for frame in frames {
        let Frame { number, pixels } = frame?;
        assert!(pixels.iter().all(|&pixel| pixel == number), "the frame is whole");
        viewed += 1;
    }
    Ok(viewed)
}
