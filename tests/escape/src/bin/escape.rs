//! `escape`: runs the suite.
fn main() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let task: palisade_escape::runner::Task = serde_json::from_str(&line).unwrap();
    let rows = palisade_escape::runner::run(&task).unwrap();
    println!("{}", serde_json::to_string(&rows).unwrap());
}
