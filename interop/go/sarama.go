package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// IBM's sarama.
type saramaLibrary struct{}

func init() {
	sarama.Logger = log.New(io.Discard, "", 0)
}

func saramaConfig() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Return.Successes = true
	config.Consumer.Return.Errors = true
	// A fetch at a partition's end holds up whoever closes the consumer.
	config.Consumer.MaxWaitTime = 50 * time.Millisecond
	config.Metadata.RefreshFrequency = time.Second
	config.Metadata.Retry.Backoff = 100 * time.Millisecond
	return config
}

func saramaCodec(name string) sarama.CompressionCodec {
	switch name {
	case "gzip":
		return sarama.CompressionGZIP
	case "snappy":
		return sarama.CompressionSnappy
	case "lz4":
		return sarama.CompressionLZ4
	case "zstd":
		return sarama.CompressionZSTD
	}
	return sarama.CompressionNone
}

func saramaAcks(name string) sarama.RequiredAcks {
	switch name {
	case "0":
		return sarama.NoResponse
	case "1":
		return sarama.WaitForLocal
	}
	return sarama.WaitForAll
}

// Tells null from empty: an encoder that is not there is null.
func encoder(value octets) sarama.Encoder {
	if value == nil {
		return nil
	}
	return sarama.ByteEncoder(value)
}

func (saramaLibrary) produce(r *request) ([]int64, error) {
	config := saramaConfig()
	config.Producer.Compression = saramaCodec(r.Codec)
	config.Producer.RequiredAcks = saramaAcks(r.Acks)
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.MaxMessageBytes = 4194304
	config.Producer.Flush.Frequency = 5 * time.Millisecond
	config.Net.MaxOpenRequests = 1
	config.Producer.Idempotent = r.Idempotence
	producer, err := sarama.NewSyncProducer([]string{r.Bootstrap}, config)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	sent := make([]*sarama.ProducerMessage, 0, len(r.Records))
	for _, each := range r.Records {
		message := &sarama.ProducerMessage{
			Topic:     r.Topic,
			Partition: each.Partition,
			Timestamp: time.UnixMilli(each.Timestamp),
			Key:       encoder(each.Key),
			Value:     encoder(each.Value),
		}
		for _, h := range each.Headers {
			out := sarama.RecordHeader{Key: []byte(h.name), Value: h.value}
			message.Headers = append(message.Headers, out)
		}
		sent = append(sent, message)
	}
	if err := producer.SendMessages(sent); err != nil {
		var all sarama.ProducerErrors
		if errors.As(err, &all) && len(all) > 0 {
			return nil, all[0].Err
		}
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

func fromSarama(found *sarama.ConsumerMessage) record {
	out := record{
		Partition: found.Partition,
		Offset:    found.Offset,
		Timestamp: found.Timestamp.UnixMilli(),
		Key:       found.Key,
		Value:     found.Value,
		Headers:   []header{},
	}
	for _, h := range found.Headers {
		out.Headers = append(out.Headers, header{string(h.Key), h.Value})
	}
	return out
}

func (saramaLibrary) consume(r *request) ([]record, error) {
	config := saramaConfig()
	config.Consumer.Fetch.Default = 4194304
	consumer, err := sarama.NewConsumer([]string{r.Bootstrap}, config)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(r.Topic, r.Partition, r.From)
	if err != nil {
		return nil, err
	}
	defer partition.Close()
	var records []record
	end := time.After(consumeLimit)
	for len(records) < r.Count {
		select {
		case found := <-partition.Messages():
			records = append(records, fromSarama(found))
		case err := <-partition.Errors():
			return nil, err
		case <-end:
			return records, nil
		}
	}
	return records, nil
}

func withSarama(r *request, ask func(sarama.Client, sarama.ClusterAdmin) error) error {
	client, err := sarama.NewClient([]string{r.Bootstrap}, saramaConfig())
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		client.Close()
		return err
	}
	// Closes the client, too.
	defer admin.Close()
	return ask(client, admin)
}

func (saramaLibrary) watermarks(r *request) (low, high int64, err error) {
	err = withSarama(r, func(client sarama.Client, _ sarama.ClusterAdmin) (err error) {
		if low, err = client.GetOffset(r.Topic, r.Partition, sarama.OffsetOldest); err != nil {
			return err
		}
		high, err = client.GetOffset(r.Topic, r.Partition, sarama.OffsetNewest)
		return err
	})
	return low, high, err
}

func (saramaLibrary) offsets(r *request) (found []int64, err error) {
	err = withSarama(r, func(client sarama.Client, _ sarama.ClusterAdmin) error {
		for _, at := range r.Times {
			offset, err := client.GetOffset(r.Topic, r.Partition, at)
			if err != nil {
				return err
			}
			found = append(found, offset)
		}
		return nil
	})
	return found, err
}

func (saramaLibrary) create(r *request) error {
	return withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		detail := sarama.TopicDetail{NumPartitions: r.Partitions, ReplicationFactor: 1}
		detail.ConfigEntries = pointers(r.Configs)
		return admin.CreateTopic(r.Topic, &detail, false)
	})
}

func (saramaLibrary) delete(r *request) error {
	return withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		return admin.DeleteTopic(r.Topic)
	})
}

func (saramaLibrary) topics(r *request) (found []string, err error) {
	err = withSarama(r, func(client sarama.Client, _ sarama.ClusterAdmin) (err error) {
		found, err = client.Topics()
		return err
	})
	return found, err
}

func (saramaLibrary) configs(r *request) (map[string]string, error) {
	configs := map[string]string{}
	err := withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		topic := sarama.ConfigResource{Type: sarama.TopicResource, Name: r.Topic}
		entries, err := admin.DescribeConfig(topic)
		for _, entry := range entries {
			configs[entry.Name] = entry.Value
		}
		return err
	})
	return configs, err
}

func (saramaLibrary) setConfigs(r *request) error {
	return withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		changes := map[string]sarama.IncrementalAlterConfigsEntry{}
		for name, value := range pointers(r.Configs) {
			set := sarama.IncrementalAlterConfigsOperationSet
			changes[name] = sarama.IncrementalAlterConfigsEntry{Operation: set, Value: value}
		}
		return admin.IncrementalAlterConfig(sarama.TopicResource, r.Topic, changes, false)
	})
}

func (saramaLibrary) partitions(r *request) (count int, err error) {
	err = withSarama(r, func(client sarama.Client, _ sarama.ClusterAdmin) error {
		partitions, err := client.Partitions(r.Topic)
		count = len(partitions)
		return err
	})
	return count, err
}

func (saramaLibrary) addPartitions(r *request) error {
	return withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		return admin.CreatePartitions(r.Topic, r.Partitions, nil, false)
	})
}

// The library does not say what the broker answered: asked anew.
func (s saramaLibrary) deleteRecords(r *request) (int64, error) {
	err := withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		return admin.DeleteRecords(r.Topic, map[int32]int64{r.Partition: r.Before})
	})
	if err != nil {
		return 0, err
	}
	low, _, err := s.watermarks(r)
	return low, err
}

func (saramaLibrary) groups(r *request) (found []string, err error) {
	err = withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		listed, err := admin.ListConsumerGroups()
		for name := range listed {
			found = append(found, name)
		}
		return err
	})
	return found, err
}

func names(topic string, partitions []int32) []string {
	out := []string{}
	for _, partition := range partitions {
		out = append(out, fmt.Sprintf("%s-%d", topic, partition))
	}
	return out
}

func (saramaLibrary) describeGroup(r *request) (state string, found [][]string, err error) {
	err = withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		described, err := admin.DescribeConsumerGroups([]string{r.Group})
		if err != nil {
			return err
		}
		group := described[0]
		if group.Err != sarama.ErrNoError {
			return group.Err
		}
		state = group.State
		for _, each := range group.Members {
			assigned, err := each.GetMemberAssignment()
			if err != nil {
				return err
			}
			partitions := []string{}
			if assigned != nil {
				for topic, of := range assigned.Topics {
					partitions = append(partitions, names(topic, of)...)
				}
			}
			found = append(found, partitions)
		}
		return nil
	})
	return state, found, err
}

func (saramaLibrary) committed(r *request) (map[int32]int64, error) {
	offsets := map[int32]int64{}
	err := withSarama(r, func(client sarama.Client, admin sarama.ClusterAdmin) error {
		answer, err := admin.ListConsumerGroupOffsets(r.Group, nil)
		if err != nil {
			return err
		}
		if answer.Err != sarama.ErrNoError {
			return answer.Err
		}
		for partition, block := range answer.Blocks[r.Topic] {
			offsets[partition] = block.Offset
		}
		return nil
	})
	return offsets, err
}

func (saramaLibrary) commit(r *request) error {
	return withSarama(r, func(client sarama.Client, _ sarama.ClusterAdmin) error {
		manager, err := sarama.NewOffsetManagerFromClient(r.Group, client)
		if err != nil {
			return err
		}
		for partition, offset := range r.Offsets {
			managed, err := manager.ManagePartition(r.Topic, partition)
			if err != nil {
				return err
			}
			// One of the two moves it: forwards, or back.
			managed.MarkOffset(offset, "")
			managed.ResetOffset(offset, "")
			defer managed.AsyncClose()
		}
		manager.Commit()
		return manager.Close()
	})
}

func (saramaLibrary) deleteGroup(r *request) error {
	return withSarama(r, func(_ sarama.Client, admin sarama.ClusterAdmin) error {
		return admin.DeleteConsumerGroup(r.Group)
	})
}

// What the library calls for each generation of the group.
type generation struct {
	member *member
	// Commits of several partitions at once may overtake each other, and take an offset back.
	committing *sync.Mutex
}

func (g generation) Setup(session sarama.ConsumerGroupSession) error {
	for topic, partitions := range session.Claims() {
		g.member.assigned(topic, partitions, true)
	}
	return nil
}

func (g generation) Cleanup(session sarama.ConsumerGroupSession) error {
	for topic, partitions := range session.Claims() {
		g.member.assigned(topic, partitions, false)
	}
	return nil
}

func (g generation) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case found, open := <-claim.Messages():
			if !open {
				return nil
			}
			g.member.took(fromSarama(found))
			session.MarkMessage(found, "")
			// A commit takes its time: once for all that is there.
			if len(claim.Messages()) == 0 {
				g.committing.Lock()
				session.Commit()
				g.committing.Unlock()
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

func (saramaLibrary) join(r *request) (*member, error) {
	config := saramaConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = time.Duration(r.Session) * time.Millisecond
	config.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	config.Consumer.Group.Rebalance.Retry.Backoff = 300 * time.Millisecond
	strategy := sarama.NewBalanceStrategyRange()
	if r.Assignor == "roundrobin" {
		strategy = sarama.NewBalanceStrategyRoundRobin()
	}
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	if r.Instance != nil {
		config.Consumer.Group.InstanceId = *r.Instance
	}
	group, err := sarama.NewConsumerGroup([]string{r.Bootstrap}, r.Group, config)
	if err != nil {
		return nil, err
	}
	joined := newMember()
	leaving, left := context.WithCancel(context.Background())
	ended := make(chan struct{})
	joined.leave = func() {
		left()
		<-ended
		joined.noted(group.Close())
	}
	go func() {
		for err := range group.Errors() {
			joined.noted(err)
		}
	}()
	go func() {
		defer close(ended)
		for leaving.Err() == nil {
			handler := generation{joined, &sync.Mutex{}}
			if err := group.Consume(leaving, []string{r.Topic}, handler); err != nil {
				joined.noted(err)
				time.Sleep(200 * time.Millisecond)
			}
		}
	}()
	return joined, nil
}
