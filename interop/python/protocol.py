"""What every Python adapter shares: the line protocol of interop/README.md, and group members."""

import json
import sys
import threading

LIMIT = 30.0


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def tohex(data):
    return None if data is None else bytes(data).hex()


def serve(verbs):
    """Answers requests until standard input ends."""
    # Some libraries print; answers must not mix with that.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = verbs[request["do"]](request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class Member(threading.Thread):
    """A group member that polls in a thread of its own, and commits whatever it was given.

    What is particular to a library is in `open`, `poll`, `commit`, `assigned` and `shut`.
    """

    members = {}

    def __init__(self, request):
        super().__init__(daemon=True)
        self.request = request
        self.assignment = []
        self.consumed = []
        self.note = None
        self.leaving = threading.Event()

    def run(self):
        self.open(self.request)
        while not self.leaving.is_set():
            try:
                records = self.poll()
                self.assignment = self.assigned()
                self.consumed.extend(records)
                if records:
                    self.commit()
            except Exception as error:
                # A commit may come too late for its generation, or find no broker: others follow.
                self.note = f"{type(error).__name__}: {error}"
        self.shut()

    @classmethod
    def verbs(cls):
        def join(request):
            member = cls(request)
            cls.members[request["member"]] = member
            member.start()
            return {}

        def describe(request):
            member = cls.members[request["member"]]
            count = len(member.consumed)
            return {"assignment": member.assignment, "count": count, "note": member.note}

        def consumed(request):
            return {"records": list(cls.members[request["member"]].consumed)}

        def leave(request):
            member = cls.members[request["member"]]
            member.leaving.set()
            member.join(LIMIT)
            return {}

        return {"join": join, "member": describe, "consumed": consumed, "leave": leave}
