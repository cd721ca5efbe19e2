//! Starts and removes throw-away clusters for people.
fn main() {}
