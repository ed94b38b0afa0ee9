//! A program that shares the type of a queue's items with another one: each defines the type for
//! itself, under one name.
//!
//! ```text
//! multiproc manager serve @shop
//! cargo run --example manager_type -- @shop
//! ```
//!
//! `multiproc manager list @shop` shows the queue `orders` of `shop.Order`.

use std::error::Error;

use multiproc::{Consumer, Manager};

/// The other program may give its struct another name in Rust, and has the same `rename`. The names
/// and types of the fields must be the same.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "shop.Order")]
struct Order {
    number: u64,
    text: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let _runtime = multiproc::init();
    let address = std::env::args().nth(1).ok_or("usage: manager_type ADDRESS")?;
    let manager = Manager::connect(&*address)?;
    // Whichever program comes first creates the queue.
    manager.queue::<Order>("orders", 100)?;
    let orders: Consumer<Order> = manager.open("orders")?;
    println!("ready");
    for order in orders.iter() {
        let Order { number, text } = order?;
        println!("order {number}: {text}");
    }
    Ok(())
}
