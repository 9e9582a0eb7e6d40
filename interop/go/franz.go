package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz-go.
type franz struct{}

func within(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), limit)
}

func franzCodec(name string) kgo.CompressionCodec {
	switch name {
	case "gzip":
		return kgo.GzipCompression()
	case "snappy":
		return kgo.SnappyCompression()
	case "lz4":
		return kgo.Lz4Compression()
	case "zstd":
		return kgo.ZstdCompression()
	}
	return kgo.NoCompression()
}

func franzAcks(name string) kgo.Acks {
	switch name {
	case "0":
		return kgo.NoAck()
	case "1":
		return kgo.LeaderAck()
	}
	return kgo.AllISRAcks()
}

func (franz) produce(r *request) ([]int64, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(r.Bootstrap),
		kgo.ProducerBatchCompression(franzCodec(r.Codec)),
		kgo.RequiredAcks(franzAcks(r.Acks)),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(4194304),
		// Not RecordDeliveryTimeout: it counts from the record's own time, and ours are old.
		kgo.RecordRetries(20),
		kgo.ProducerLinger(5 * time.Millisecond),
	}
	if !r.Idempotence {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	sent := make([]*kgo.Record, 0, len(r.Records))
	for _, each := range r.Records {
		out := &kgo.Record{
			Topic:     r.Topic,
			Partition: each.Partition,
			Timestamp: time.UnixMilli(each.Timestamp),
			Key:       each.Key,
			Value:     each.Value,
		}
		for _, h := range each.Headers {
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.name, Value: h.value})
		}
		sent = append(sent, out)
	}
	ctx, cancel := within(produceLimit)
	defer cancel()
	results := client.ProduceSync(ctx, sent...)
	if err := results.FirstErr(); err != nil {
		return nil, err
	}
	offsets := make([]int64, 0, len(sent))
	for _, each := range sent {
		if r.Acks == "0" {
			offsets = append(offsets, -1)
		} else {
			offsets = append(offsets, each.Offset)
		}
	}
	return offsets, nil
}

func fromFranz(found *kgo.Record) record {
	out := record{
		Partition: found.Partition,
		Offset:    found.Offset,
		Timestamp: found.Timestamp.UnixMilli(),
		Key:       found.Key,
		Value:     found.Value,
		Headers:   []header{},
	}
	for _, h := range found.Headers {
		out.Headers = append(out.Headers, header{h.Key, h.Value})
	}
	return out
}

func (franz) consume(r *request) ([]record, error) {
	from := map[string]map[int32]kgo.Offset{r.Topic: {r.Partition: kgo.NewOffset().At(r.From)}}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(r.Bootstrap),
		kgo.ConsumePartitions(from),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := within(consumeLimit)
	defer cancel()
	var records []record
	for len(records) < r.Count && ctx.Err() == nil {
		fetches := client.PollRecords(ctx, r.Count-len(records))
		if err := fetches.Err0(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		fetches.EachRecord(func(found *kgo.Record) { records = append(records, fromFranz(found)) })
	}
	return records, nil
}

func withFranz(r *request, ask func(context.Context, *kadm.Client) error) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(r.Bootstrap))
	if err != nil {
		return err
	}
	admin := kadm.NewClient(client)
	defer admin.Close()
	ctx, cancel := within(limit)
	defer cancel()
	return ask(ctx, admin)
}

func (franz) watermarks(r *request) (low, high int64, err error) {
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		starts, err := admin.ListStartOffsets(ctx, r.Topic)
		if err != nil {
			return err
		}
		ends, err := admin.ListEndOffsets(ctx, r.Topic)
		if err != nil {
			return err
		}
		start, _ := starts.Lookup(r.Topic, r.Partition)
		end, _ := ends.Lookup(r.Topic, r.Partition)
		low, high = start.Offset, end.Offset
		return errors.Join(start.Err, end.Err)
	})
	return low, high, err
}

// The library gives the end of the partition where no record is late enough, and no timestamp.
func (franz) offsets(r *request) (found []int64, err error) {
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		for _, at := range r.Times {
			listed, err := admin.ListOffsetsAfterMilli(ctx, at, r.Topic)
			if err != nil {
				return err
			}
			offset, _ := listed.Lookup(r.Topic, r.Partition)
			if offset.Err != nil {
				return offset.Err
			}
			if offset.Timestamp < 0 {
				offset.Offset = -1
			}
			found = append(found, offset.Offset)
		}
		return nil
	})
	return found, err
}

func pointers(configs map[string]string) map[string]*string {
	out := map[string]*string{}
	for name, value := range configs {
		out[name] = &value
	}
	return out
}

func (franz) create(r *request) error {
	return withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		_, err := admin.CreateTopic(ctx, r.Partitions, 1, pointers(r.Configs), r.Topic)
		return err
	})
}

func (franz) delete(r *request) error {
	return withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		deleted, err := admin.DeleteTopics(ctx, r.Topic)
		if err != nil {
			return err
		}
		topic, err := deleted.On(r.Topic, nil)
		return errors.Join(err, topic.Err)
	})
}

func (franz) topics(r *request) (names []string, err error) {
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		listed, err := admin.ListTopics(ctx)
		names = listed.Names()
		return err
	})
	return names, err
}

func (franz) configs(r *request) (configs map[string]string, err error) {
	configs = map[string]string{}
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		described, err := admin.DescribeTopicConfigs(ctx, r.Topic)
		if err != nil {
			return err
		}
		topic, err := described.On(r.Topic, nil)
		for _, config := range topic.Configs {
			configs[config.Key] = config.MaybeValue()
		}
		return errors.Join(err, topic.Err)
	})
	return configs, err
}

func (franz) setConfigs(r *request) error {
	return withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		var changes []kadm.AlterConfig
		for name, value := range pointers(r.Configs) {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: value})
		}
		altered, err := admin.AlterTopicConfigs(ctx, changes, r.Topic)
		if err != nil {
			return err
		}
		topic, err := altered.On(r.Topic, nil)
		return errors.Join(err, topic.Err)
	})
}

func (franz) partitions(r *request) (count int, err error) {
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		listed, err := admin.ListTopics(ctx, r.Topic)
		count = len(listed[r.Topic].Partitions)
		return errors.Join(err, listed[r.Topic].Err)
	})
	return count, err
}

func (franz) addPartitions(r *request) error {
	return withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		updated, err := admin.UpdatePartitions(ctx, int(r.Partitions), r.Topic)
		if err != nil {
			return err
		}
		topic, err := updated.On(r.Topic, nil)
		return errors.Join(err, topic.Err)
	})
}

func (franz) deleteRecords(r *request) (low int64, err error) {
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		before := kadm.Offsets{}
		before.AddOffset(r.Topic, r.Partition, r.Before, -1)
		deleted, err := admin.DeleteRecords(ctx, before)
		if err != nil {
			return err
		}
		partition, _ := deleted.Lookup(r.Topic, r.Partition)
		low = partition.LowWatermark
		return partition.Err
	})
	return low, err
}

func (franz) groups(r *request) (names []string, err error) {
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		listed, err := admin.ListGroups(ctx)
		names = listed.Groups()
		return err
	})
	return names, err
}

func (franz) describeGroup(r *request) (state string, found [][]string, err error) {
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		described, err := admin.DescribeGroups(ctx, r.Group)
		if err != nil {
			return err
		}
		group := described[r.Group]
		state = group.State
		for _, each := range group.Members {
			assigned, _ := each.Assigned.AsConsumer()
			partitions := []string{}
			for _, topic := range assigned.Topics {
				partitions = append(partitions, names(topic.Topic, topic.Partitions)...)
			}
			found = append(found, partitions)
		}
		return group.Err
	})
	return state, found, err
}

func (franz) committed(r *request) (offsets map[int32]int64, err error) {
	offsets = map[int32]int64{}
	err = withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		fetched, err := admin.FetchOffsets(ctx, r.Group)
		for partition, offset := range fetched[r.Topic] {
			offsets[partition] = offset.At
		}
		return errors.Join(err, fetched.Error())
	})
	return offsets, err
}

func (franz) commit(r *request) error {
	return withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		wanted := kadm.Offsets{}
		for partition, offset := range r.Offsets {
			wanted.AddOffset(r.Topic, partition, offset, -1)
		}
		return admin.CommitAllOffsets(ctx, r.Group, wanted)
	})
}

func (franz) deleteGroup(r *request) error {
	return withFranz(r, func(ctx context.Context, admin *kadm.Client) error {
		deleted, err := admin.DeleteGroups(ctx, r.Group)
		if err != nil {
			return err
		}
		return deleted[r.Group].Err
	})
}

func franzBalancer(name string) kgo.GroupBalancer {
	switch name {
	case "cooperative-sticky":
		return kgo.CooperativeStickyBalancer()
	case "roundrobin":
		return kgo.RoundRobinBalancer()
	}
	return kgo.RangeBalancer()
}

func (franz) join(r *request) (*member, error) {
	joined := newMember()
	change := func(is bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			for topic, partitions := range changed {
				joined.assigned(topic, partitions, is)
			}
		}
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(r.Bootstrap),
		kgo.ConsumerGroup(r.Group),
		kgo.ConsumeTopics(r.Topic),
		kgo.Balancers(franzBalancer(r.Assignor)),
		kgo.SessionTimeout(time.Duration(r.Session) * time.Millisecond),
		kgo.HeartbeatInterval(300 * time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.MetadataMaxAge(time.Second),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)),
		kgo.OnPartitionsRevoked(change(false)),
		kgo.OnPartitionsLost(change(false)),
	}
	if r.Instance != nil {
		options = append(options, kgo.InstanceID(*r.Instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	leaving, left := context.WithCancel(context.Background())
	ended := make(chan struct{})
	joined.leave = func() {
		left()
		<-ended
		ctx, cancel := within(limit)
		defer cancel()
		client.LeaveGroupContext(ctx)
		client.Close()
	}
	go func() {
		defer close(ended)
		for leaving.Err() == nil {
			fetches := client.PollFetches(leaving)
			fetches.EachError(func(_ string, _ int32, err error) { joined.noted(err) })
			fetches.EachRecord(func(found *kgo.Record) { joined.took(fromFranz(found)) })
			if !fetches.Empty() {
				ctx, cancel := within(5 * time.Second)
				joined.noted(client.CommitUncommittedOffsets(ctx))
				cancel()
			}
		}
	}()
	return joined, nil
}
