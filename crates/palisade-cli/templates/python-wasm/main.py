from palisade_plugin import Plugin

plugin = Plugin()


@plugin.tool
def greet(name: str, times: int = 1) -> str:
    """Greets somebody."""
    plugin.log.info("greeting", who=name)
    return "Hello, " + ", ".join([name] * times) + "!"


# @plugin.event("chat.>")            # needs the capability event.subscribe:chat.>
# async def on_chat(event):
#     await plugin.storage.set("last", event.data)             # needs storage.kv:last
#
# @plugin.hook("message.received")   # and under contributes: hooks: [{ event: message.received }]
# def moderate(data):
#     return {**data, "text": data["text"].strip()}

if __name__ == "__main__":
    plugin.run()
