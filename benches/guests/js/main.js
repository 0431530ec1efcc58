import { Plugin, string } from "@palisade/plugin";

const plugin = new Plugin();

plugin.tool("echo", { description: "Gives back what it is given.", params: { text: string() } }, ({ text }) => ({ text }));

plugin.run();
