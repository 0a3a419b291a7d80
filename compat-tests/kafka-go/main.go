// segmentio/kafka-go's program: the client that asks for old versions (Produce 7, Fetch 10, Metadata 1 and 6).
// Its readers have a partition here, not a group: that is in groups.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"time"

	. "compat/talk"

	"github.com/segmentio/kafka-go"
)

var (
	always = context.Background()
	client = &kafka.Client{Addr: kafka.TCP(Bootstrap), Timeout: 30 * time.Second}
)

func main() {
	if len(os.Args) == 2 {
		alone(os.Args[1])
	}
	scenarios := map[string]Scenario{
		"cluster":              cluster,
		"api-versions":         apiVersions,
		"create-topic":         createTopic,
		"create-topic-refused": createTopicRefused,
		"describe-topic":       describeTopic,
		"list-topics":          listTopics,
		"unknown-topic":        unknownTopic,
		"create-partitions":    createPartitions,
		"delete-topic":         deleteTopic,
		"auto-create":          autoCreate,
		"many-partitions":      manyPartitions,
		"topic-config":         topicConfig,
		"topic-config-refused": topicConfigRefused,
		"broker-config":        brokerConfig,
		"acks-0":               roundTrip(func(writer *kafka.Writer) { writer.RequiredAcks = kafka.RequireNone }),
		"acks-1":               roundTrip(func(writer *kafka.Writer) { writer.RequiredAcks = kafka.RequireOne }),
		"acks-all":             roundTrip(func(writer *kafka.Writer) { writer.RequiredAcks = kafka.RequireAll }),
		"codec-gzip":           roundTrip(func(writer *kafka.Writer) { writer.Compression = kafka.Gzip }),
		"codec-snappy":         roundTrip(func(writer *kafka.Writer) { writer.Compression = kafka.Snappy }),
		"codec-lz4":            roundTrip(func(writer *kafka.Writer) { writer.Compression = kafka.Lz4 }),
		"codec-zstd":           roundTrip(func(writer *kafka.Writer) { writer.Compression = kafka.Zstd }),
		"codec-of-topic":       codecOfTopic,
		"keys-headers":         keysHeaders,
		"tombstone":            tombstone,
		"big-message":          bigMessage,
		"too-large":            tooLarge,
		"consume-middle":       consumeMiddle,
		"long-poll":            longPoll,
		"offset-out-of-range":  offsetOutOfRange,
		"offsets-by-time":      offsetsByTime,
		"read-committed":       readCommitted,
		"restart":              survives("restart"),
		"kill-9":               survives("kill"),
	}
	maps.Copy(scenarios, groupScenarios)
	Answer(scenarios, map[string]string{
		"create-topic-validate-only": "it waits for the topic to appear",
		"log-append-time":            "it shows a record's own time whatever the batch says",
		"idempotent":                 "its writer is not idempotent",
		"idempotent-kills":           "its writer is not idempotent",
		"group-cooperative":          "it has no such assignor",
		"group-static":               "it sends no instance id",
		"group-consumer-protocol":    "only the classic protocol",
		"group-migrate":              "only the classic protocol",
		"group-lag":                  "it has no such call; kafka-tools does it",
		"group-offsets-topic":        "kafka-tools does it",
		"compacted-topic":            "others do it",
		"txn-commit":                 "its writer has no transactions",
		"txn-abort":                  "its writer has no transactions",
		"txn-fencing":                "its writer has no transactions",
		"txn-offsets":                "its writer has no transactions",
		"txn-kill-9":                 "its writer has no transactions",
		"txn-admin":                  "not in its interface",
		"txn-streams":                "Kafka Streams is Java",
	})
}

// The cluster and its topics

func cluster(string) string {
	seen := Must(client.Metadata(always, &kafka.MetadataRequest{}))
	Same(len(seen.Brokers), 1)
	Same(seen.Brokers[0].ID, 1)
	Same(fmt.Sprintf("%s:%d", seen.Brokers[0].Host, seen.Brokers[0].Port), Bootstrap)
	Same(seen.Controller.ID, 1)
	Same(len(seen.ClusterID), 22)
	return ""
}

func apiVersions(string) string {
	response := Must(client.ApiVersions(always, &kafka.ApiVersionsRequest{}))
	Check(response.Error)
	seen := map[string]string{}
	for _, key := range response.ApiKeys {
		seen[key.ApiName] = fmt.Sprintf("%d-%d", key.MinVersion, key.MaxVersion)
	}
	for name, wanted := range map[string]string{
		"Produce": "0-13", "Fetch": "4-18", "Metadata": "0-13", "CreateTopics": "2-7",
		"DeleteTopics": "1-6", "InitProducerId": "0-5", "DescribeConfigs": "1-4", "OffsetForLeaderEpoch": "2-4",
	} {
		Same(name+" "+seen[name], name+" "+wanted)
	}
	return ""
}

func createTopic(topic string) string {
	create(topic, 3, "retention.ms", "86400000", "cleanup.policy", "compact,delete")
	shows(kafka.ResourceTypeTopic, topic, "retention.ms", "86400000", sourceTopic)
	shows(kafka.ResourceTypeTopic, topic, "cleanup.policy", "compact,delete", sourceTopic)
	Same(len(describe(topic).Partitions), 3)
	return ""
}

func createTopicRefused(topic string) string {
	create(topic, 1)
	attempt := func(name string, partitions, replicas int, configs ...kafka.ConfigEntry) error {
		config := kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: replicas, ConfigEntries: configs}
		return Must(client.CreateTopics(always, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})).Errors[name]
	}
	refused(attempt(topic, 1, 1), kafka.TopicAlreadyExists)
	refused(attempt("bad name", 1, 1), kafka.InvalidTopic)
	refused(attempt("none", 0, 1), kafka.InvalidPartitionNumber)
	refused(attempt("three", 1, 3), kafka.InvalidReplicationFactor)
	refused(attempt("key", 1, 1, kafka.ConfigEntry{ConfigName: "no.such.key", ConfigValue: "1"}), kafka.InvalidConfiguration)
	refused(attempt("value", 1, 1, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "soon"}), kafka.InvalidConfiguration)
	return ""
}

func describeTopic(topic string) string {
	create(topic, 2)
	seen := describe(topic)
	Same(seen.Internal, false)
	Same(len(seen.Partitions), 2)
	for _, partition := range seen.Partitions {
		Check(partition.Error)
		Same(partition.Leader.ID, 1)
		Same([]int{len(partition.Replicas), partition.Replicas[0].ID}, []int{1, 1})
		Same([]int{len(partition.Isr), partition.Isr[0].ID}, []int{1, 1})
	}
	return ""
}

func listTopics(topic string) string {
	create(topic, 3)
	Same(listedTopics()[topic], 3)
	return ""
}

func unknownTopic(topic string) string {
	seen := Must(client.DeleteTopics(always, &kafka.DeleteTopicsRequest{Topics: []string{topic}}))
	refused(seen.Errors[topic], kafka.UnknownTopicOrPartition)
	return ""
}

func createPartitions(topic string) string {
	create(topic, 1)
	write(writer(), messages(topic, Numbers(0, 10))...)
	increase := func(count int32) error {
		config := kafka.TopicPartitionsConfig{Name: topic, Count: count}
		return Must(client.CreatePartitions(always, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{config}})).Errors[topic]
	}
	Check(increase(4))
	Eventually(func() { Same(len(describe(topic).Partitions), 4) })
	write(writer(func(writer *kafka.Writer) { writer.Balancer = partition(3) }), kafka.Message{Topic: topic, Value: []byte("new")})
	Same(values(read(topic, 3, 0, 1)), []string{"new"})
	Same(values(read(topic, 0, 0, 10)), Numbers(0, 10))
	refused(increase(2), kafka.InvalidPartitionNumber)
	refused(increase(4), kafka.InvalidPartitionNumber)
	return ""
}

func deleteTopic(topic string) string {
	create(topic, 1)
	write(writer(), messages(topic, Numbers(0, 10))...)
	Check(Must(client.DeleteTopics(always, &kafka.DeleteTopicsRequest{Topics: []string{topic}})).Errors[topic])
	Eventually(func() { Same(listedTopics()[topic], 0) })
	create(topic, 1)
	write(writer(), messages(topic, []string{"anew"})...)
	Same(values(read(topic, 0, 0, 1)), []string{"anew"})
	return ""
}

func autoCreate(topic string) string {
	creating := func(writer *kafka.Writer) { writer.AllowAutoTopicCreation = true }
	Eventually(func() { write(writer(creating), messages(topic, Numbers(0, 3))...) })
	Same(values(read(topic, 0, 0, 3)), Numbers(0, 3))
	return ""
}

func manyPartitions(topic string) string {
	create(topic, 50)
	var sent []kafka.Message
	for number := range 1000 {
		sent = append(sent, kafka.Message{Topic: topic, Value: fmt.Appendf(nil, "%d", number)})
	}
	write(writer(func(writer *kafka.Writer) { writer.Balancer = &kafka.RoundRobin{} }), sent...)
	for partition := range 50 {
		for number, seen := range values(read(topic, partition, 0, 20)) {
			Same(seen, fmt.Sprint(number*50+partition))
		}
	}
	return ""
}

// Configs

const (
	sourceTopic   = 1
	sourceBroker  = 2
	sourceDefault = 5
)

func topicConfig(topic string) string {
	create(topic, 1)
	shows(kafka.ResourceTypeTopic, topic, "max.message.bytes", "1048588", sourceDefault)
	Check(alter(kafka.ResourceTypeTopic, topic,
		kafka.IncrementalAlterConfigsRequestConfig{Name: "max.message.bytes", Value: "2000000", ConfigOperation: kafka.ConfigOperationSet},
		kafka.IncrementalAlterConfigsRequestConfig{Name: "cleanup.policy", Value: "compact", ConfigOperation: kafka.ConfigOperationAppend}))
	shows(kafka.ResourceTypeTopic, topic, "max.message.bytes", "2000000", sourceTopic)
	shows(kafka.ResourceTypeTopic, topic, "cleanup.policy", "delete,compact", sourceTopic)
	Check(alter(kafka.ResourceTypeTopic, topic,
		kafka.IncrementalAlterConfigsRequestConfig{Name: "max.message.bytes", ConfigOperation: kafka.ConfigOperationDelete},
		kafka.IncrementalAlterConfigsRequestConfig{Name: "cleanup.policy", Value: "delete", ConfigOperation: kafka.ConfigOperationSubtract}))
	shows(kafka.ResourceTypeTopic, topic, "max.message.bytes", "1048588", sourceDefault)
	shows(kafka.ResourceTypeTopic, topic, "cleanup.policy", "compact", sourceTopic)
	return ""
}

func topicConfigRefused(topic string) string {
	create(topic, 1)
	set := func(name, key, value string) error {
		return alter(kafka.ResourceTypeTopic, name,
			kafka.IncrementalAlterConfigsRequestConfig{Name: key, Value: value, ConfigOperation: kafka.ConfigOperationSet})
	}
	refused(set(topic, "no.such.key", "1"), kafka.InvalidConfiguration)
	refused(set(topic, "retention.ms", "soon"), kafka.InvalidConfiguration)
	refused(set("not-there", "retention.ms", "1"), kafka.UnknownTopicOrPartition)
	shows(kafka.ResourceTypeTopic, topic, "retention.ms", "604800000", sourceDefault)
	return ""
}

func brokerConfig(topic string) string {
	const key = "message.max.bytes"
	create(topic, 1)
	// It has no way to speak of all brokers.
	change := func(value string, operation kafka.ConfigOperation) error {
		return alter(kafka.ResourceTypeBroker, "1",
			kafka.IncrementalAlterConfigsRequestConfig{Name: key, Value: value, ConfigOperation: operation})
	}
	shows(kafka.ResourceTypeBroker, "1", key, "1048588", sourceDefault)
	Check(change("3000000", kafka.ConfigOperationSet))
	shows(kafka.ResourceTypeBroker, "1", key, "3000000", sourceBroker)
	write(writer(func(writer *kafka.Writer) { writer.BatchBytes = 10_000_000 }), kafka.Message{Topic: topic, Value: make([]byte, 2_500_000)})
	Check(change("", kafka.ConfigOperationDelete))
	shows(kafka.ResourceTypeBroker, "1", key, "1048588", sourceDefault)
	refused(alter(kafka.ResourceTypeBroker, "1", kafka.IncrementalAlterConfigsRequestConfig{
		Name: "log.dirs", Value: "/x", ConfigOperation: kafka.ConfigOperationSet}), kafka.InvalidRequest)
	return ""
}

// Records

func roundTrip(set func(*kafka.Writer)) Scenario {
	return func(topic string) string {
		create(topic, 1)
		write(writer(set), messages(topic, Numbers(0, 1000))...)
		seen := read(topic, 0, 0, 1000)
		Same(values(seen), Numbers(0, 1000))
		for index, message := range seen {
			Same(message.Offset, int64(index))
		}
		return ""
	}
}

func codecOfTopic(topic string) string {
	create(topic, 1, "compression.type", "zstd")
	write(writer(func(writer *kafka.Writer) { writer.Compression = kafka.Gzip }), messages(topic, Numbers(0, 1000))...)
	Same(values(read(topic, 0, 0, 1000)), Numbers(0, 1000))
	return ""
}

func keysHeaders(topic string) string {
	create(topic, 1)
	headers := []kafka.Header{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte{}}, {Key: "c"}, {Key: "a", Value: []byte("2")}}
	write(writer(),
		kafka.Message{Topic: topic, Key: []byte("k"), Value: []byte("v"), Headers: headers, Time: time.UnixMilli(1_600_000_000_123)},
		kafka.Message{Topic: topic, Key: []byte{}, Value: []byte{}},
		kafka.Message{Topic: topic, Value: []byte("no key")})
	seen := read(topic, 0, 0, 3)
	Same(string(seen[0].Key)+" "+string(seen[0].Value), "k v")
	Same(fmt.Sprint(seen[0].Headers), fmt.Sprint(headers)) // its reader makes empty and null one
	Same(seen[0].Time.UnixMilli(), 1_600_000_000_123)
	Same(len(seen[1].Key)+len(seen[1].Value), 0)
	Same(string(seen[2].Value), "no key")
	return ""
}

func tombstone(topic string) string {
	create(topic, 1)
	write(writer(), kafka.Message{Topic: topic, Key: []byte("gone")}, kafka.Message{Topic: topic, Key: []byte("empty"), Value: []byte{}})
	seen := read(topic, 0, 0, 2)
	Same(seen[0].Value == nil, true)
	Same(len(seen[1].Value), 0)
	return ""
}

func bigMessage(topic string) string {
	create(topic, 1)
	value := random(900_000)
	write(writer(), kafka.Message{Topic: topic, Value: value})
	Same(string(read(topic, 0, 0, 1)[0].Value) == string(value), true)
	return ""
}

func tooLarge(topic string) string {
	create(topic, 1)
	large := kafka.Message{Topic: topic, Value: random(1_500_000)}
	writer := writer(func(writer *kafka.Writer) { writer.BatchBytes, writer.MaxAttempts = 10_000_000, 1 })
	defer writer.Close()
	var failures kafka.WriteErrors
	Same(errors.As(writer.WriteMessages(always, large), &failures), true)
	refused(failures[0], kafka.MessageSizeTooLarge)
	Check(alter(kafka.ResourceTypeTopic, topic, kafka.IncrementalAlterConfigsRequestConfig{
		Name: "max.message.bytes", Value: "2000000", ConfigOperation: kafka.ConfigOperationSet}))
	Eventually(func() { Check(writer.WriteMessages(always, large)) })
	seen := read(topic, 0, 0, 1)[0]
	Same(seen.Offset, 0)
	Same(string(seen.Value) == string(large.Value), true)
	return ""
}

// Reading

func consumeMiddle(topic string) string {
	create(topic, 1)
	write(writer(), messages(topic, Numbers(0, 100))...)
	Same(values(read(topic, 0, 37, 63)), Numbers(37, 100))
	Same(values(read(topic, 0, 98, 2)), Numbers(98, 100))
	return ""
}

func longPoll(topic string) string {
	create(topic, 1)
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{Bootstrap}, Topic: topic, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 5 * time.Second})
	defer reader.Close()
	seen := make(chan string)
	go func() {
		message, err := reader.ReadMessage(always)
		seen <- fmt.Sprint(string(message.Value), err)
	}()
	time.Sleep(time.Second) // its fetch is at the broker now, or will be soon: either way it must see the record at once
	began := time.Now()
	write(writer(), messages(topic, []string{"late"})...)
	Same(<-seen, "late<nil>")
	Same(time.Since(began) < 3*time.Second, true)
	return ""
}

func offsetOutOfRange(topic string) string {
	create(topic, 1)
	write(writer(), messages(topic, Numbers(0, 10))...)
	request := &kafka.FetchRequest{Topic: topic, Offset: 1000, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second}
	refused(Must(client.Fetch(always, request)).Error, kafka.OffsetOutOfRange)
	return ""
}

func offsetsByTime(topic string) string {
	create(topic, 1)
	var sent []kafka.Message
	for _, ms := range []int64{2_000, 1_000, 5_000, 3_000, 5_000, 4_000} {
		sent = append(sent, kafka.Message{Topic: topic, Value: []byte("v"), Time: time.UnixMilli(1_600_000_000_000 + ms)})
	}
	write(writer(), sent...)
	for timestamp, wanted := range map[int64]int64{
		1_600_000_000_000: 0, 1_600_000_002_001: 2, 1_600_000_005_000: 2, 1_600_000_005_001: -1,
		kafka.FirstOffset: 0, kafka.LastOffset: 6,
	} {
		Same(listed(topic, timestamp, kafka.ReadUncommitted), wanted)
	}
	return ""
}

func readCommitted(topic string) string {
	create(topic, 1)
	write(writer(), messages(topic, Numbers(0, 100))...)
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{Bootstrap}, Topic: topic, MaxWait: 50 * time.Millisecond, IsolationLevel: kafka.ReadCommitted})
	defer reader.Close()
	for _, value := range Numbers(0, 100) {
		Same(string(Must(reader.ReadMessage(always)).Value), value)
	}
	Same(listed(topic, kafka.LastOffset, kafka.ReadCommitted), 100)
	return ""
}

// Restarts

func survives(how string) Scenario {
	return func(topic string) string {
		create(topic, 2, "retention.ms", "86400000")
		var sent []kafka.Message
		for _, value := range Numbers(0, 100) {
			sent = append(sent, kafka.Message{Topic: topic, Key: []byte("k"), Value: []byte(value)})
		}
		write(writer(func(writer *kafka.Writer) { writer.Balancer = partition(1) }), sent...)
		Broker(how)
		Eventually(func() { Same(values(read(topic, 1, 0, 100)), Numbers(0, 100)) })
		shows(kafka.ResourceTypeTopic, topic, "retention.ms", "86400000", sourceTopic)
		write(writer(func(writer *kafka.Writer) { writer.Balancer = partition(1) }), kafka.Message{Topic: topic, Value: []byte("more")})
		Same(read(topic, 1, 100, 1)[0].Offset, 100)
		return ""
	}
}

// What the scenarios are written in

func create(topic string, partitions int, configs ...string) {
	config := kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}
	for index := 0; index < len(configs); index += 2 {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: configs[index], ConfigValue: configs[index+1]})
	}
	response := Must(client.CreateTopics(always, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}}))
	Check(response.Errors[topic])
	Eventually(func() { Same(len(describe(topic).Partitions), partitions) })
}

func describe(topic string) kafka.Topic {
	seen := Must(client.Metadata(always, &kafka.MetadataRequest{Topics: []string{topic}})).Topics[0]
	Check(seen.Error)
	return seen
}

// listedTopics is each topic's number of partitions.
func listedTopics() map[string]int {
	seen := map[string]int{}
	for _, topic := range Must(client.Metadata(always, &kafka.MetadataRequest{})).Topics {
		seen[topic.Name] = len(topic.Partitions)
	}
	return seen
}

func partition(number int) kafka.Balancer {
	return kafka.BalancerFunc(func(kafka.Message, ...int) int { return number })
}

func messages(topic string, texts []string) []kafka.Message {
	var messages []kafka.Message
	for _, text := range texts {
		messages = append(messages, kafka.Message{Topic: topic, Value: []byte(text)})
	}
	return messages
}

// writer waits for acknowledgements unless told otherwise: by itself it would not.
func writer(changes ...func(*kafka.Writer)) *kafka.Writer {
	writer := &kafka.Writer{Addr: kafka.TCP(Bootstrap), BatchTimeout: 10 * time.Millisecond, RequiredAcks: kafka.RequireAll}
	for _, change := range changes {
		change(writer)
	}
	return writer
}

func write(writer *kafka.Writer, messages ...kafka.Message) {
	defer writer.Close()
	Check(writer.WriteMessages(always, messages...))
}

func read(topic string, partition int, offset int64, count int) []kafka.Message {
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{Bootstrap}, Topic: topic, Partition: partition, MaxWait: 50 * time.Millisecond})
	defer reader.Close()
	Check(reader.SetOffset(offset))
	enough, cancel := context.WithTimeout(always, 40*time.Second)
	defer cancel()
	var messages []kafka.Message
	for len(messages) < count {
		messages = append(messages, Must(reader.ReadMessage(enough)))
	}
	return messages
}

func values(messages []kafka.Message) []string {
	var texts []string
	for _, message := range messages {
		texts = append(texts, string(message.Value))
	}
	return texts
}

func listed(topic string, timestamp int64, isolation kafka.IsolationLevel) int64 {
	response := Must(client.ListOffsets(always, &kafka.ListOffsetsRequest{
		Topics:         map[string][]kafka.OffsetRequest{topic: {{Partition: 0, Timestamp: timestamp}}},
		IsolationLevel: isolation,
	}))
	seen := response.Topics[topic][0]
	Check(seen.Error)
	switch timestamp {
	case kafka.FirstOffset:
		return seen.FirstOffset
	case kafka.LastOffset:
		return seen.LastOffset
	}
	for offset := range seen.Offsets {
		return offset
	}
	return -1
}

func shows(kind kafka.ResourceType, name, key, value string, source int8) {
	Eventually(func() {
		response := Must(client.DescribeConfigs(always, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kind, ResourceName: name, ConfigNames: []string{key}}},
		}))
		Check(response.Resources[0].Error)
		seen := response.Resources[0].ConfigEntries[0]
		Same(fmt.Sprint(seen.ConfigValue, " ", seen.ConfigSource), fmt.Sprint(value, " ", source))
	})
}

func alter(kind kafka.ResourceType, name string, changes ...kafka.IncrementalAlterConfigsRequestConfig) error {
	response := Must(client.IncrementalAlterConfigs(always, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{ResourceType: kind, ResourceName: name, Configs: changes}},
	}))
	return response.Resources[0].Error
}

func refused(err, wanted error) {
	if !errors.Is(err, wanted) {
		panic(fmt.Sprintf("got %v, wanted %v", err, wanted))
	}
}

func random(size int) []byte {
	bytes := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(bytes)
	return bytes
}
