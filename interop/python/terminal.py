"""A program in a terminal of its own, behind the protocol of interop/README.md: keys go in, the screen comes out."""

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
import threading

import pyte

from protocol import serve

ROWS, COLUMNS = 45, 170


class Terminal:
    """One program, and what it has drawn so far. It ends with us: its terminal is gone then."""

    def __init__(self, program, arguments):
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.drawn = threading.Lock()
        self.child, self.keyboard = pty.fork()
        if self.child == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(program, [program, *arguments])
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        threading.Thread(target=self.draw, daemon=True).start()

    def draw(self):
        stream = pyte.ByteStream(self.screen)
        while True:
            try:
                output = os.read(self.keyboard, 65536)
            except OSError:
                return
            with self.drawn:
                stream.feed(output)

    def lines(self):
        with self.drawn:
            return [line.rstrip() for line in self.screen.display if line.strip()]

    def press(self, keys):
        os.write(self.keyboard, keys.encode())

    def end(self):
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        os.close(self.keyboard)


terminals = {}


def run(request):
    # Beside the Python that runs this: a program of the same requirements.
    program = os.path.join(os.path.dirname(sys.executable), request["program"])
    terminals[request["name"]] = Terminal(program, request["arguments"])
    return {}


def press(request):
    terminals[request["name"]].press(request["keys"])
    return {}


def screen(request):
    return {"lines": terminals[request["name"]].lines()}


def end(request):
    terminals.pop(request["name"]).end()
    return {}


serve({"run": run, "press": press, "screen": screen, "end": end})
