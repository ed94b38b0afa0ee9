use multiproc::Process;
use std::error::Error;

fn parse(text: String) -> Result<u32, Box<dyn Error>> {
    Ok(text.parse()?)
}

fn main() {
    let _runtime = multiproc::init();
    let _ = Process::spawn(parse, "5".to_owned());
}
