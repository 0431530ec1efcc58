/** Greets somebody, as often as asked. */
export function greet(name: string, times: number): string {
  return `Hello, ${Array(times).fill(name).join(", ")}!`;
}
