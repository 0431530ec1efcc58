import { Plugin, integer, optional, string } from "@palisade/plugin";
import { greet } from "./greet.js";

const plugin = new Plugin();
const params = { name: string(), times: optional(integer(), 1) };

plugin.tool("greet", { description: "Greets somebody.", params }, ({ name, times }) => {
  plugin.log.info("greeting", { who: name });
  return greet(name, times);
});

// plugin.event("chat.>", async (event) => {             // needs the capability event.subscribe:chat.>
//   await plugin.storage.set("last", event.data);       // needs storage.kv:last
// });
//
// plugin.hook("message.received", (data) => {           // and under contributes: hooks: [{ event: message.received }]
//   return { ...data, text: data.text.trim() };
// });

plugin.run();
