// Clients in Go behind the protocol of interop/README.md: `interop franz` or `interop sarama`.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	limit        = 30 * time.Second
	produceLimit = 50 * time.Second
	consumeLimit = 20 * time.Second
)

// bytes as the protocol writes them: hexadecimal text, null for nil.
type octets []byte

func (o octets) MarshalJSON() ([]byte, error) {
	if o == nil {
		return []byte("null"), nil
	}
	return json.Marshal(hex.EncodeToString(o))
}

func (o *octets) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*o = nil
		return nil
	}
	var digits string
	if err := json.Unmarshal(text, &digits); err != nil {
		return err
	}
	decoded, err := hex.DecodeString(digits)
	*o = append(octets{}, decoded...)
	return err
}

type header struct {
	name  string
	value octets
}

func (h header) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{h.name, h.value})
}

func (h *header) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&h.name, &h.value})
}

type record struct {
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Timestamp int64    `json:"timestamp"`
	Key       octets   `json:"key"`
	Value     octets   `json:"value"`
	Headers   []header `json:"headers"`
}

type request struct {
	Do          string            `json:"do"`
	Bootstrap   string            `json:"bootstrap"`
	Topic       string            `json:"topic"`
	Partition   int32             `json:"partition"`
	Partitions  int32             `json:"partitions"`
	Configs     map[string]string `json:"configs"`
	Codec       string            `json:"codec"`
	Acks        string            `json:"acks"`
	Idempotence bool              `json:"idempotence"`
	Records     []record          `json:"records"`
	From        int64             `json:"from"`
	Count       int               `json:"count"`
	Times       []int64           `json:"times"`
	Before      int64             `json:"before"`
	Group       string            `json:"group"`
	Member      string            `json:"member"`
	Session     int               `json:"session"`
	Assignor    string            `json:"assignor"`
	Instance    *string           `json:"instance"`
	Offsets     map[int32]int64   `json:"offsets"`
}

type answer map[string]any

// What is particular to a library. Each call opens what it needs and closes it again.
type library interface {
	produce(*request) ([]int64, error)
	consume(*request) ([]record, error)
	watermarks(*request) (low, high int64, err error)
	offsets(*request) ([]int64, error)
	create(*request) error
	delete(*request) error
	topics(*request) ([]string, error)
	configs(*request) (map[string]string, error)
	setConfigs(*request) error
	partitions(*request) (int, error)
	addPartitions(*request) error
	deleteRecords(*request) (low int64, err error)
	groups(*request) ([]string, error)
	describeGroup(*request) (state string, members [][]string, err error)
	committed(*request) (map[int32]int64, error)
	commit(*request) error
	deleteGroup(*request) error
	join(*request) (*member, error)
}

// A group member that polls in the background, and commits whatever it was given.
type member struct {
	sync.Mutex
	assignment map[string]bool
	consumed   []record
	note       string
	leave      func()
}

func newMember() *member {
	return &member{assignment: map[string]bool{}}
}

func (m *member) noted(err error) {
	if err != nil {
		m.Lock()
		defer m.Unlock()
		m.note = err.Error()
	}
}

func (m *member) took(records ...record) {
	m.Lock()
	defer m.Unlock()
	m.consumed = append(m.consumed, records...)
}

func (m *member) assigned(topic string, partitions []int32, is bool) {
	m.Lock()
	defer m.Unlock()
	for _, partition := range partitions {
		name := fmt.Sprintf("%s-%d", topic, partition)
		delete(m.assignment, name)
		if is {
			m.assignment[name] = true
		}
	}
}

func (m *member) describe() answer {
	m.Lock()
	defer m.Unlock()
	assignment := []string{}
	for name := range m.assignment {
		assignment = append(assignment, name)
	}
	return answer{"assignment": assignment, "count": len(m.consumed), "note": m.note}
}

func (m *member) records() answer {
	m.Lock()
	defer m.Unlock()
	return answer{"records": append([]record{}, m.consumed...)}
}

var members = map[string]*member{}

func handle(lib library, r *request) (answer, error) {
	switch r.Do {
	case "produce":
		offsets, err := lib.produce(r)
		return answer{"offsets": offsets}, err
	case "consume":
		records, err := lib.consume(r)
		return answer{"records": append([]record{}, records...)}, err
	case "watermarks":
		low, high, err := lib.watermarks(r)
		return answer{"low": low, "high": high}, err
	case "offsets":
		offsets, err := lib.offsets(r)
		return answer{"offsets": offsets}, err
	case "create":
		return answer{}, lib.create(r)
	case "delete":
		return answer{}, lib.delete(r)
	case "topics":
		topics, err := lib.topics(r)
		return answer{"topics": topics}, err
	case "configs":
		configs, err := lib.configs(r)
		return answer{"configs": configs}, err
	case "set-configs":
		return answer{}, lib.setConfigs(r)
	case "partitions":
		count, err := lib.partitions(r)
		return answer{"partitions": count}, err
	case "add-partitions":
		return answer{}, lib.addPartitions(r)
	case "delete-records":
		low, err := lib.deleteRecords(r)
		return answer{"low": low}, err
	case "groups":
		groups, err := lib.groups(r)
		return answer{"groups": groups}, err
	case "describe-group":
		state, found, err := lib.describeGroup(r)
		return answer{"state": state, "members": append([][]string{}, found...)}, err
	case "committed":
		offsets, err := lib.committed(r)
		return answer{"offsets": offsets}, err
	case "commit":
		return answer{}, lib.commit(r)
	case "delete-group":
		return answer{}, lib.deleteGroup(r)
	case "join":
		joined, err := lib.join(r)
		members[r.Member] = joined
		return answer{}, err
	}
	joined, known := members[r.Member]
	if !known {
		return nil, fmt.Errorf("unknown request %q, or nobody is called %q", r.Do, r.Member)
	}
	switch r.Do {
	case "member":
		return joined.describe(), nil
	case "consumed":
		return joined.records(), nil
	case "leave":
		joined.leave()
		return answer{}, nil
	}
	return nil, fmt.Errorf("unknown request %q", r.Do)
}

func main() {
	libraries := map[string]library{"franz": franz{}, "sarama": saramaLibrary{}}
	lib := libraries[os.Args[1]]
	requests := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := requests.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return
		}
		var r request
		reply := answer{}
		if err = json.Unmarshal(line, &r); err == nil {
			reply, err = handle(lib, &r)
		}
		if err != nil {
			reply = answer{"error": err.Error()}
		}
		if err := answers.Encode(reply); err != nil {
			return
		}
	}
}
