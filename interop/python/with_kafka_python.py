"""kafka-python, behind the protocol of interop/README.md."""

import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from protocol import LIMIT, Member, serve, tohex, unhex

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}


def produce(request):
    codec = request["codec"]
    producer = KafkaProducer(
        bootstrap_servers=request["bootstrap"],
        compression_type=None if codec == "none" else codec,
        acks="all" if request["acks"] == "all" else int(request["acks"]),
        enable_idempotence=request["idempotence"],
        max_request_size=4194304,
        delivery_timeout_ms=45000,
        linger_ms=5,
    )
    try:
        sent = [
            producer.send(
                request["topic"],
                partition=record["partition"],
                key=unhex(record["key"]),
                value=unhex(record["value"]),
                headers=[(name, unhex(value)) for name, value in record["headers"]],
                timestamp_ms=record["timestamp"],
            )
            for record in request["records"]
        ]
        offsets = [future.get(timeout=50).offset for future in sent]
    finally:
        producer.close()
    return {"offsets": [-1 if offset is None else offset for offset in offsets]}


def consumer(request):
    return KafkaConsumer(
        bootstrap_servers=request["bootstrap"],
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=4194304,
    )


def described(record):
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": tohex(record.key),
        "value": tohex(record.value),
        "headers": [[name, tohex(value)] for name, value in record.headers],
    }


def consume(request):
    records = []
    deadline = time.monotonic() + 20
    reader = consumer(request)
    try:
        partition = TopicPartition(request["topic"], request["partition"])
        reader.assign([partition])
        reader.seek(partition, request["from"])
        while len(records) < request["count"] and time.monotonic() < deadline:
            wanted = request["count"] - len(records)
            for found in reader.poll(timeout_ms=200, max_records=wanted).values():
                records.extend(described(record) for record in found)
    finally:
        reader.close()
    return {"records": records}


def watermarks(request):
    partition = TopicPartition(request["topic"], request["partition"])
    reader = consumer(request)
    try:
        low = reader.beginning_offsets([partition])[partition]
        high = reader.end_offsets([partition])[partition]
    finally:
        reader.close()
    return {"low": low, "high": high}


def offsets(request):
    partition = TopicPartition(request["topic"], request["partition"])
    reader = consumer(request)
    try:
        found = [reader.offsets_for_times({partition: at})[partition] for at in request["times"]]
    finally:
        reader.close()
    return {"offsets": [-1 if offset is None else offset.offset for offset in found]}


def with_admin(ask):
    def answer(request):
        admin = KafkaAdminClient(bootstrap_servers=request["bootstrap"])
        try:
            return ask(admin, request) or {}
        finally:
            admin.close()
    return answer


def create(admin, request):
    topic = {
        "num_partitions": request["partitions"],
        "replication_factor": 1,
        "configs": request["configs"],
    }
    admin.create_topics({request["topic"]: topic})


def delete(admin, request):
    admin.delete_topics([request["topic"]])


def topics(admin, _request):
    return {"topics": admin.list_topics()}


def topic_resource(request, configs=None):
    return ConfigResource(ConfigResourceType.TOPIC, request["topic"], configs)


def configs(admin, request):
    described = admin.describe_configs([topic_resource(request)], config_filter="all")
    entries = described["topic"][request["topic"]]
    return {"configs": {name: entry["value"] for name, entry in entries.items()}}


def set_configs(admin, request):
    altered = admin.alter_configs([topic_resource(request, request["configs"])])
    result = altered["topic"][request["topic"]]
    if result != "OK":
        raise RuntimeError(result)


def partitions(admin, request):
    [topic] = admin.describe_topics([request["topic"]])
    return {"partitions": len(topic["partitions"])}


def add_partitions(admin, request):
    admin.create_partitions({request["topic"]: request["partitions"]})


def delete_records(admin, request):
    partition = TopicPartition(request["topic"], request["partition"])
    deleted = admin.delete_records({partition: request["before"]})
    return {"low": deleted[partition]["low_watermark"]}


def groups(admin, _request):
    return {"groups": [group["group_id"] for group in admin.list_groups()]}


def describe_group(admin, request):
    group = admin.describe_groups([request["group"]])[request["group"]]
    members = [
        [
            f"{at['topic']}-{partition}"
            for at in member["member_assignment"]["assigned_partitions"]
            for partition in at["partitions"]
        ]
        for member in group["members"]
    ]
    return {"state": group["group_state"], "members": members}


def committed(admin, request):
    found = admin.list_group_offsets(request["group"])[request["group"]]
    return {"offsets": {
        str(at.partition): offset.offset
        for at, offset in found.items() if at.topic == request["topic"]
    }}


def commit(admin, request):
    wanted = {
        TopicPartition(request["topic"], int(partition)): OffsetAndMetadata(offset, "", -1)
        for partition, offset in request["offsets"].items()
    }
    for at, error in admin.alter_group_offsets(request["group"], wanted).items():
        if error is not NoError:
            raise error(str(at))


def delete_group(admin, request):
    result = admin.delete_groups([request["group"]])[request["group"]]
    if result != "OK":
        raise RuntimeError(result)


class GroupMember(Member):
    def open(self, request):
        self.client = KafkaConsumer(
            bootstrap_servers=request["bootstrap"],
            group_id=request["group"],
            group_instance_id=request["instance"],
            session_timeout_ms=request["session"],
            heartbeat_interval_ms=300,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            metadata_max_age_ms=1000,
            reconnect_backoff_max_ms=500,
            partition_assignment_strategy=[ASSIGNORS[request["assignor"]]],
        )
        self.client.subscribe([request["topic"]])
        # The library must have heard of the topic after it subscribed and before it joins. If it
        # hears of it later, it joins once more; and a leader whose poll ends in the middle of such
        # a join takes it for unnecessary, drops the answer and never sends a heartbeat again.
        self.client.partitions_for_topic(request["topic"])

    def poll(self):
        found = self.client.poll(timeout_ms=100)
        return [described(record) for records in found.values() for record in records]

    def assigned(self):
        return [f"{at.topic}-{at.partition}" for at in self.client.assignment()]

    def commit(self):
        self.client.commit()

    def shut(self):
        self.client.close()


serve({
    "produce": produce,
    "consume": consume,
    "watermarks": watermarks,
    "offsets": offsets,
    "create": with_admin(create),
    "delete": with_admin(delete),
    "topics": with_admin(topics),
    "configs": with_admin(configs),
    "set-configs": with_admin(set_configs),
    "partitions": with_admin(partitions),
    "add-partitions": with_admin(add_partitions),
    "delete-records": with_admin(delete_records),
    "groups": with_admin(groups),
    "describe-group": with_admin(describe_group),
    "committed": with_admin(committed),
    "commit": with_admin(commit),
    "delete-group": with_admin(delete_group),
    **GroupMember.verbs(),
})
