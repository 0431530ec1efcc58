/** Greets somebody, as often as asked. */
export function greet(name, times) {
  return `Hello, ${Array(times).fill(name).join(", ")}!`;
}
