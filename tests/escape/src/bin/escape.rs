//! `escape`: runs the suite.
fn main() {
    let task: palisade_escape::runner::Task =
        serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let rows = palisade_escape::runner::run(&task).unwrap();
    println!("{}", serde_json::to_string(&rows).unwrap());
}
