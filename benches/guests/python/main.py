from palisade_plugin import Plugin

plugin = Plugin()


@plugin.tool
def echo(text: str) -> dict:
    """Gives back what it is given."""
    return {"text": text}


if __name__ == "__main__":
    plugin.run()
