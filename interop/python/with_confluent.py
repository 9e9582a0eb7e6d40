"""librdkafka through confluent-kafka, behind the protocol of interop/README.md."""

import threading
import time

import confluent_kafka
import confluent_kafka.admin
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from protocol import LIMIT, Member, serve, tohex, unhex


def produce(request):
    producer = Producer({
        "bootstrap.servers": request["bootstrap"],
        "compression.codec": request["codec"],
        "acks": request["acks"],
        "enable.idempotence": request["idempotence"],
        "message.max.bytes": 4194304,
        "message.timeout.ms": 45000,
        "linger.ms": 5,
    })
    offsets = [None] * len(request["records"])
    errors = []

    def delivered(index):
        def report(error, message):
            if error is not None:
                errors.append(str(error))
                return
            offset = message.offset()
            offsets[index] = -1 if offset is None or offset < 0 else offset
        return report

    for index, record in enumerate(request["records"]):
        producer.produce(
            request["topic"],
            partition=record["partition"],
            key=unhex(record["key"]),
            value=unhex(record["value"]),
            headers=[(name, unhex(value)) for name, value in record["headers"]],
            timestamp=record["timestamp"],
            on_delivery=delivered(index),
        )
        producer.poll(0)
    unsent = producer.flush(50)
    if errors or unsent:
        raise RuntimeError(f"{unsent} not delivered, errors: {errors[:3]}")
    return {"offsets": offsets}


def consumer(request):
    return Consumer({
        "bootstrap.servers": request["bootstrap"],
        "group.id": "interop",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
    })


def consume(request):
    records = []
    deadline = time.monotonic() + 20
    reader = consumer(request)
    try:
        reader.assign([TopicPartition(request["topic"], request["partition"], request["from"])])
        while len(records) < request["count"] and time.monotonic() < deadline:
            for message in reader.consume(request["count"] - len(records), timeout=0.2):
                if message.error() is not None:
                    raise KafkaException(message.error())
                records.append(described(message))
    finally:
        reader.close()
    return {"records": records}


def described(message):
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "key": tohex(message.key()),
        "value": tohex(message.value()),
        "headers": [[name, tohex(value)] for name, value in message.headers() or []],
    }


def watermarks(request):
    reader = consumer(request)
    try:
        partition = TopicPartition(request["topic"], request["partition"])
        low, high = reader.get_watermark_offsets(partition, timeout=LIMIT)
    finally:
        reader.close()
    return {"low": low, "high": high}


def offsets(request):
    reader = consumer(request)
    found = []
    try:
        for timestamp in request["times"]:
            asked = TopicPartition(request["topic"], request["partition"], timestamp)
            [answer] = reader.offsets_for_times([asked], timeout=LIMIT)
            if answer.error is not None:
                raise KafkaException(answer.error)
            found.append(max(answer.offset, -1))
    finally:
        reader.close()
    return {"offsets": found}


def admin(request):
    # Whoever waits for a result must hold the client: collected, it fails what it still owes.
    return AdminClient({"bootstrap.servers": request["bootstrap"]})


def create(request):
    topic = NewTopic(request["topic"], request["partitions"], config=request["configs"])
    client = admin(request)
    client.create_topics([topic])[request["topic"]].result(LIMIT)
    return {}


def delete(request):
    client = admin(request)
    client.delete_topics([request["topic"]])[request["topic"]].result(LIMIT)
    return {}


def topics(request):
    return {"topics": sorted(admin(request).list_topics(timeout=LIMIT).topics)}


def topic_resource(request, **more):
    return ConfigResource(ConfigResource.Type.TOPIC, request["topic"], **more)


def configs(request):
    client = admin(request)
    [described] = client.describe_configs([topic_resource(request)]).values()
    return {"configs": {name: entry.value for name, entry in described.result(LIMIT).items()}}


def set_configs(request):
    # What old versions lack is looked up only when it is asked for.
    set_it = confluent_kafka.admin.AlterConfigOpType.SET
    changes = [
        confluent_kafka.admin.ConfigEntry(name, value, incremental_operation=set_it)
        for name, value in request["configs"].items()
    ]
    client = admin(request)
    resource = topic_resource(request, incremental_configs=changes)
    [changed] = client.incremental_alter_configs([resource]).values()
    changed.result(LIMIT)
    return {}


def partitions(request):
    client = admin(request)
    topics = confluent_kafka.TopicCollection([request["topic"]])
    [described] = client.describe_topics(topics).values()
    return {"partitions": len(described.result(LIMIT).partitions)}


def add_partitions(request):
    client = admin(request)
    more = NewPartitions(request["topic"], request["partitions"])
    client.create_partitions([more])[request["topic"]].result(LIMIT)
    return {}


def delete_records(request):
    client = admin(request)
    before = TopicPartition(request["topic"], request["partition"], request["before"])
    [deleted] = client.delete_records([before]).values()
    return {"low": deleted.result(LIMIT).low_watermark}


def groups(request):
    client = admin(request)
    listed = client.list_consumer_groups().result(LIMIT)
    return {"groups": [group.group_id for group in listed.valid]}


def describe_group(request):
    client = admin(request)
    [described] = client.describe_consumer_groups([request["group"]]).values()
    group = described.result(LIMIT)
    members = [
        [f"{at.topic}-{at.partition}" for at in member.assignment.topic_partitions]
        for member in group.members
    ]
    return {"state": group.state.name.title().replace("_", ""), "members": members}


def committed(request):
    client = admin(request)
    asked = confluent_kafka.ConsumerGroupTopicPartitions(request["group"])
    [answer] = client.list_consumer_group_offsets([asked]).values()
    found = answer.result(LIMIT).topic_partitions
    return {"offsets": {
        str(at.partition): at.offset
        for at in found if at.topic == request["topic"] and at.offset >= 0
    }}


def commit(request):
    client = admin(request)
    offsets = [
        TopicPartition(request["topic"], int(partition), offset)
        for partition, offset in request["offsets"].items()
    ]
    wanted = confluent_kafka.ConsumerGroupTopicPartitions(request["group"], offsets)
    [altered] = client.alter_consumer_group_offsets([wanted]).values()
    for at in altered.result(LIMIT).topic_partitions:
        if at.error is not None:
            raise KafkaException(at.error)
    return {}


def delete_group(request):
    client = admin(request)
    [deleted] = client.delete_consumer_groups([request["group"]]).values()
    deleted.result(LIMIT)
    return {}


class GroupMember(Member):
    def open(self, request):
        config = {
            "bootstrap.servers": request["bootstrap"],
            "group.id": request["group"],
            "session.timeout.ms": request["session"],
            "heartbeat.interval.ms": 300,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 1000,
            "reconnect.backoff.max.ms": 500,
            "partition.assignment.strategy": request["assignor"],
        }
        if request["instance"] is not None:
            config["group.instance.id"] = request["instance"]
        self.client = Consumer(config)
        self.client.subscribe([request["topic"]])

    def poll(self):
        messages = self.client.consume(500, timeout=0.1)
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
        return [described(message) for message in messages]

    def assigned(self):
        return [f"{at.topic}-{at.partition}" for at in self.client.assignment()]

    def commit(self):
        self.client.commit(asynchronous=False)

    def shut(self):
        self.client.close()


class Stream:
    """Writes numbered records, paced, until told to end; keeps what was acknowledged."""

    def __init__(self, request):
        self.acknowledged = []
        self.failed = 0
        self.ending = threading.Event()
        self.topic = request["topic"]
        self.partitions = request["partitions"]
        self.producer = Producer({
            "bootstrap.servers": request["bootstrap"],
            "acks": "all",
            # Without idempotence a retry may write twice, but never out of order: one request in flight.
            "max.in.flight": 5 if request["idempotence"] else 1,
            "enable.idempotence": request["idempotence"],
            "message.timeout.ms": 90000,
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 200,
            "linger.ms": 2,
        })
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        number = 0
        while not self.ending.is_set():
            for _ in range(10):
                self.write(number)
                number += 1
            # Paces the stream and serves the delivery reports.
            until = time.monotonic() + 0.004
            while time.monotonic() < until:
                self.producer.poll(0.002)
        self.failed += self.producer.flush(90)

    def write(self, number):
        def report(error, message):
            if error is not None:
                self.failed += 1
            else:
                self.acknowledged.append([message.partition(), message.offset(), number])

        while True:
            try:
                self.producer.produce(
                    self.topic,
                    partition=number % self.partitions,
                    value=b"%010d" % number,
                    on_delivery=report,
                )
                return
            except BufferError:
                self.producer.poll(0.05)


class Streams:
    current = None

    @classmethod
    def start(cls, request):
        cls.current = Stream(request)
        return {}

    @classmethod
    def progress(cls, _request):
        return {"acknowledged": len(cls.current.acknowledged)}

    @classmethod
    def end(cls, _request):
        cls.current.ending.set()
        cls.current.thread.join(100)
        return {"acknowledged": cls.current.acknowledged, "failed": cls.current.failed}


serve({
    "produce": produce,
    "consume": consume,
    "watermarks": watermarks,
    "offsets": offsets,
    "create": create,
    "delete": delete,
    "topics": topics,
    "configs": configs,
    "set-configs": set_configs,
    "partitions": partitions,
    "add-partitions": add_partitions,
    "delete-records": delete_records,
    "groups": groups,
    "describe-group": describe_group,
    "committed": committed,
    "commit": commit,
    "delete-group": delete_group,
    **GroupMember.verbs(),
    "start-stream": Streams.start,
    "stream-progress": Streams.progress,
    "end-stream": Streams.end,
})
