// franz-go's program. Partitions are consumed directly here: who joins a group is in groups.go, what is transactional in transactions.go.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"strings"
	"sync"
	"time"

	. "compat/talk"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	admin  = kadm.NewClient(client())
	always = context.Background()
)

func main() {
	if len(os.Args) == 3 {
		alone(os.Args[1], os.Args[2])
	}
	scenarios := map[string]Scenario{
		"cluster":                    cluster,
		"api-versions":               apiVersions,
		"features":                   features,
		"quorum":                     quorum,
		"create-topic":               createTopic,
		"create-topic-refused":       createTopicRefused,
		"create-topic-validate-only": createTopicValidateOnly,
		"describe-topic":             describeTopic,
		"list-topics":                listTopics,
		"unknown-topic":              unknownTopic,
		"create-partitions":          createPartitions,
		"delete-topic":               deleteTopic,
		"auto-create":                autoCreate,
		"many-partitions":            manyPartitions,
		"topic-config":               topicConfig,
		"topic-config-refused":       topicConfigRefused,
		"broker-config":              brokerConfig,
		"list-config-resources":      listConfigResources,
		"acks-0":                     acks0,
		"acks-1":                     roundTrip(kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()),
		"acks-all":                   roundTrip(kgo.DisableIdempotentWrite()),
		"codec-gzip":                 roundTrip(kgo.ProducerBatchCompression(kgo.GzipCompression())),
		"codec-snappy":               roundTrip(kgo.ProducerBatchCompression(kgo.SnappyCompression())),
		"codec-lz4":                  roundTrip(kgo.ProducerBatchCompression(kgo.Lz4Compression())),
		"codec-zstd":                 roundTrip(kgo.ProducerBatchCompression(kgo.ZstdCompression())),
		"codec-of-topic":             codecOfTopic,
		"idempotent":                 roundTrip(),
		"keys-headers":               keysHeaders,
		"tombstone":                  tombstone,
		"log-append-time":            logAppendTime,
		"big-message":                bigMessage,
		"too-large":                  tooLarge,
		"consume-middle":             consumeMiddle,
		"long-poll":                  longPoll,
		"offset-out-of-range":        offsetOutOfRange,
		"offsets-by-time":            offsetsByTime,
		"read-committed":             readCommitted,
		"delete-records":             deleteRecords,
		"leader-epoch":               leaderEpoch,
		"log-dirs":                   logDirs,
		"producers":                  producers,
		"elect-leaders":              electLeaders,
		"reassignments":              reassignments,
		"restart":                    survives("restart"),
		"kill-9":                     survives("kill"),
		"idempotent-kills":           idempotentKills,
	}
	maps.Copy(scenarios, groupScenarios)
	maps.Copy(scenarios, transactionScenarios)
	Answer(scenarios, map[string]string{
		"dump-log":            "kafka-tools does it",
		"dump-compacted":      "kafka-tools does it",
		"group-offsets-topic": "kafka-tools does it",
		"group-migrate":       "Java does it",
		"txn-streams":         "Kafka Streams is Java",
	})
}

// The cluster

func cluster(string) string {
	seen := Must(admin.BrokerMetadata(always))
	Same(len(seen.Brokers), 1)
	Same(seen.Brokers[0].NodeID, 1)
	Same(fmt.Sprintf("%s:%d", seen.Brokers[0].Host, seen.Brokers[0].Port), Bootstrap)
	Same(seen.Controller, 1)
	Same(len(seen.Cluster), 22)
	return ""
}

func apiVersions(string) string {
	request := kmsg.NewPtrApiVersionsRequest()
	request.ClientSoftwareName, request.ClientSoftwareVersion = "compat", "1"
	response := Must(request.RequestWith(always, client()))
	Check(kerr.ErrorForCode(response.ErrorCode))
	seen := map[kmsg.Key]string{}
	for _, key := range response.ApiKeys {
		seen[kmsg.Key(key.ApiKey)] = fmt.Sprintf("%d-%d", key.MinVersion, key.MaxVersion)
	}
	for key, wanted := range map[kmsg.Key]string{
		kmsg.Produce: "0-13", kmsg.Fetch: "4-18", kmsg.ListOffsets: "1-11", kmsg.Metadata: "0-13",
		kmsg.ApiVersions: "0-5", kmsg.DescribeLogDirs: "1-5",
		kmsg.CreateTopics: "2-7", kmsg.DeleteTopics: "1-6", kmsg.InitProducerID: "0-5",
		kmsg.DescribeConfigs: "1-4", kmsg.OffsetForLeaderEpoch: "2-4",
	} {
		Same(key.Name()+" "+seen[key], key.Name()+" "+wanted)
	}
	return ""
}

func features(string) string {
	request := kmsg.NewPtrApiVersionsRequest()
	request.ClientSoftwareName, request.ClientSoftwareVersion = "compat", "1"
	response := Must(request.RequestWith(always, client()))
	finalized := int16(-1)
	for _, feature := range response.FinalizedFeatures {
		if feature.Name == "metadata.version" {
			finalized = feature.MaxVersionLevel
		}
	}
	for _, feature := range response.SupportedFeatures {
		if feature.Name == "metadata.version" {
			Same(feature.MinVersion <= finalized && finalized <= feature.MaxVersion, true)
			return fmt.Sprint("metadata.version ", finalized)
		}
	}
	panic("metadata.version is not there")
}

func quorum(string) string {
	request := kmsg.NewPtrDescribeQuorumRequest()
	topic, partition := kmsg.NewDescribeQuorumRequestTopic(), kmsg.NewDescribeQuorumRequestTopicPartition()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	response := Must(request.RequestWith(always, client()))
	Check(kerr.ErrorForCode(response.ErrorCode))
	seen := response.Topics[0].Partitions[0]
	Same(seen.LeaderID, 1)
	Same(len(seen.CurrentVoters), 1)
	Same(seen.CurrentVoters[0].ReplicaID, 1)
	Same(len(seen.Observers), 0)
	Same(seen.HighWatermark > 0, true)
	return ""
}

// Topics

func createTopic(topic string) string {
	create(topic, 3, "retention.ms", "86400000", "cleanup.policy", "compact,delete")
	shows(topicConfigs, topic, "retention.ms", "86400000", kmsg.ConfigSourceDynamicTopicConfig)
	shows(topicConfigs, topic, "cleanup.policy", "compact,delete", kmsg.ConfigSourceDynamicTopicConfig)
	Same(len(describe(topic).Partitions), 3)
	return ""
}

func createTopicRefused(topic string) string {
	create(topic, 1)
	attempt := func(name string, partitions int32, replicas int16, configs map[string]*string) error {
		response, err := admin.CreateTopic(always, partitions, replicas, configs, name)
		if response.ErrMessage != "" {
			return fmt.Errorf("%w|%s", err, response.ErrMessage)
		}
		return err
	}
	refused(attempt(topic, 1, 1, nil), kerr.TopicAlreadyExists, "Topic '"+topic+"' already exists.")
	refused(attempt("bad name", 1, 1, nil), kerr.InvalidTopicException, "Topic name is invalid: 'bad name' contains one or "+
		"more characters other than ASCII alphanumerics, '.', '_' and '-'")
	refused(attempt("none", 0, 1, nil), kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	refused(attempt("three", 1, 3, nil), kerr.InvalidReplicationFactor, "Unable to replicate the partition 3 time(s): The "+
		"target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all "+
		"their log directories cordoned.")
	refused(attempt("key", 1, 1, map[string]*string{"no.such.key": kadm.StringPtr("1")}), kerr.InvalidConfig,
		"Unknown topic config name: no.such.key")
	refused(attempt("value", 1, 1, map[string]*string{"retention.ms": kadm.StringPtr("soon")}), kerr.InvalidConfig,
		"Invalid value soon for configuration retention.ms: Not a number of type LONG")
	return ""
}

func createTopicValidateOnly(topic string) string {
	seen := Must(admin.ValidateCreateTopics(always, 2, 1, nil, topic))[topic]
	Check(seen.Err)
	Same(seen.NumPartitions, 2)
	Same(Must(admin.ListTopics(always)).Has(topic), false)
	return ""
}

func describeTopic(topic string) string {
	create(topic, 2)
	seen := describe(topic)
	Same(seen.IsInternal, false)
	Same(seen.Partitions.Numbers(), []int32{0, 1})
	for _, partition := range seen.Partitions {
		Same(partition.Leader, 1)
		Same(partition.Replicas, []int32{1})
		Same(partition.ISR, []int32{1})
	}
	return ""
}

func listTopics(topic string) string {
	create(topic, 3)
	Same(len(Must(admin.ListTopics(always))[topic].Partitions), 3)
	return ""
}

func unknownTopic(topic string) string {
	refused(Must(admin.ListTopics(always, topic))[topic].Err, kerr.UnknownTopicOrPartition, "")
	refused(Must(admin.DeleteTopics(always, topic))[topic].Err, kerr.UnknownTopicOrPartition, "")
	return ""
}

func createPartitions(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 10)))
	Check(Must(admin.UpdatePartitions(always, 4, topic))[topic].Err)
	Eventually(func() { Same(len(describe(topic).Partitions), 4) })
	produce([]*kgo.Record{{Topic: topic, Partition: 3, Value: []byte("new")}})
	Same(values(consume(topic, 3, at(0), 1)), []string{"new"})
	Same(values(consume(topic, 0, at(0), 10)), Numbers(0, 10))
	for count, text := range map[int]string{
		2: "The topic " + topic + " currently has 4 partition(s); 2 would not be an increase.",
		4: "Topic already has 4 partition(s).",
	} {
		seen := Must(admin.UpdatePartitions(always, count, topic))[topic]
		refused(seen.Err, kerr.InvalidPartitions, "")
		Same(seen.ErrMessage, text)
	}
	return ""
}

func deleteTopic(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 10)))
	old := describe(topic).ID
	Check(Must(admin.DeleteTopics(always, topic))[topic].Err)
	Eventually(func() { Same(Must(admin.ListTopics(always)).Has(topic), false) })
	create(topic, 1)
	Eventually(func() { Same(describe(topic).ID == old, false) }) // it may still show what it has in its cache
	Same(produce(records(topic, []string{"anew"})), []int64{0})
	Same(values(consume(topic, 0, at(0), 1)), []string{"anew"})
	return ""
}

func autoCreate(topic string) string {
	Same(produce(records(topic, Numbers(0, 3)), kgo.AllowAutoTopicCreation()), []int64{0, 1, 2})
	Same(values(consume(topic, 0, at(0), 3)), Numbers(0, 3))
	return ""
}

func manyPartitions(topic string) string {
	create(topic, 50)
	var sent []*kgo.Record
	var offsets = map[int32]kgo.Offset{}
	for number := range 20 {
		for partition := range int32(50) {
			offsets[partition] = at(0)
			sent = append(sent, &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Appendf(nil, "%d-%d", partition, number)})
		}
	}
	produce(sent)
	seen := map[int32]int{}
	for _, record := range read(1000, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets})) {
		Same(string(record.Value), fmt.Sprintf("%d-%d", record.Partition, seen[record.Partition]))
		seen[record.Partition]++
	}
	Same(len(seen), 50)
	return ""
}

// Configs

func topicConfig(topic string) string {
	create(topic, 1)
	shows(topicConfigs, topic, "max.message.bytes", "1048588", kmsg.ConfigSourceDefaultConfig)
	Check(alter(admin.AlterTopicConfigs, topic,
		kadm.AlterConfig{Op: kadm.SetConfig, Name: "max.message.bytes", Value: kadm.StringPtr("2000000")},
		kadm.AlterConfig{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: kadm.StringPtr("compact")}))
	shows(topicConfigs, topic, "max.message.bytes", "2000000", kmsg.ConfigSourceDynamicTopicConfig)
	shows(topicConfigs, topic, "cleanup.policy", "delete,compact", kmsg.ConfigSourceDynamicTopicConfig)
	Check(alter(admin.AlterTopicConfigs, topic,
		kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "max.message.bytes"},
		kadm.AlterConfig{Op: kadm.SubtractConfig, Name: "cleanup.policy", Value: kadm.StringPtr("delete")}))
	shows(topicConfigs, topic, "max.message.bytes", "1048588", kmsg.ConfigSourceDefaultConfig)
	shows(topicConfigs, topic, "cleanup.policy", "compact", kmsg.ConfigSourceDynamicTopicConfig)
	return ""
}

func topicConfigRefused(topic string) string {
	create(topic, 1)
	set := func(name, key, value string) error {
		return alter(admin.AlterTopicConfigs, name, kadm.AlterConfig{Name: key, Value: &value})
	}
	refused(set(topic, "no.such.key", "1"), kerr.InvalidConfig, "Unknown topic config name: no.such.key")
	refused(set(topic, "retention.ms", "soon"), kerr.InvalidConfig,
		"Invalid value soon for configuration retention.ms: Not a number of type LONG")
	refused(set("not-there", "retention.ms", "1"), kerr.UnknownTopicOrPartition, "The topic 'not-there' does not exist.")
	shows(topicConfigs, topic, "retention.ms", "604800000", kmsg.ConfigSourceDefaultConfig)
	return ""
}

func brokerConfig(topic string) string {
	const key = "message.max.bytes"
	create(topic, 1)
	set := func(size string, brokers ...int32) {
		change := kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &size}
		if size == "" {
			change = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: key}
		}
		for _, response := range Must(admin.AlterBrokerConfigs(always, []kadm.AlterConfig{change}, brokers...)) {
			Check(response.Err)
		}
	}
	shows(brokerConfigs, "1", key, "1048588", kmsg.ConfigSourceDefaultConfig)
	set("2000000")
	shows(brokerConfigs, "1", key, "2000000", kmsg.ConfigSourceDynamicDefaultBrokerConfig)
	set("3000000", 1)
	shows(brokerConfigs, "1", key, "3000000", kmsg.ConfigSourceDynamicBrokerConfig)
	shows(topicConfigs, topic, "max.message.bytes", "3000000", kmsg.ConfigSourceDynamicBrokerConfig)
	produce([]*kgo.Record{{Topic: topic, Value: make([]byte, 2_500_000)}}, kgo.ProducerBatchMaxBytes(10_000_000),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	set("", 1)
	shows(brokerConfigs, "1", key, "2000000", kmsg.ConfigSourceDynamicDefaultBrokerConfig)
	set("")
	shows(brokerConfigs, "1", key, "1048588", kmsg.ConfigSourceDefaultConfig)
	change := kadm.AlterConfig{Op: kadm.SetConfig, Name: "log.dirs", Value: kadm.StringPtr("/x")}
	seen := Must(admin.AlterBrokerConfigs(always, []kadm.AlterConfig{change}, 1))[0]
	refused(fmt.Errorf("%w|%s", seen.Err, seen.ErrMessage), kerr.InvalidRequest, "Cannot update these configs dynamically: [log.dirs]")
	return ""
}

func listConfigResources(topic string) string {
	create(topic, 1)
	request := kmsg.NewPtrListConfigResourcesRequest()
	request.ResourceTypes = []int8{int8(kmsg.ConfigResourceTypeTopic), int8(kmsg.ConfigResourceTypeBroker)}
	response := Must(request.RequestWith(always, client()))
	Check(kerr.ErrorForCode(response.ErrorCode))
	seen := map[string]int8{}
	for _, resource := range response.ConfigResources {
		seen[resource.Name] = resource.Type
	}
	Same(seen[topic], int8(kmsg.ConfigResourceTypeTopic))
	Same(seen["1"], int8(kmsg.ConfigResourceTypeBroker))
	return ""
}

// Records

func roundTrip(options ...kgo.Opt) Scenario {
	return func(topic string) string {
		create(topic, 1)
		for index, offset := range produce(records(topic, Numbers(0, 1000)), options...) {
			Same(offset, int64(index))
		}
		Same(values(consume(topic, 0, at(0), 1000)), Numbers(0, 1000))
		return ""
	}
}

func acks0(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 1000)), kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	Same(values(consume(topic, 0, at(0), 1000)), Numbers(0, 1000))
	return ""
}

func codecOfTopic(topic string) string {
	create(topic, 1, "compression.type", "zstd")
	produce(records(topic, Numbers(0, 1000)), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	seen := consume(topic, 0, at(0), 1000)
	Same(values(seen), Numbers(0, 1000))
	Same(seen[0].Attrs.CompressionType(), 4)
	return ""
}

func keysHeaders(topic string) string {
	create(topic, 1)
	headers := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte{}}, {Key: "c"}, {Key: "a", Value: []byte("2")}}
	produce([]*kgo.Record{
		{Topic: topic, Key: []byte("k"), Value: []byte("v"), Headers: headers, Timestamp: time.UnixMilli(1_600_000_000_123)},
		{Topic: topic, Key: []byte{}, Value: []byte{}},
		{Topic: topic, Value: []byte("no key")},
	})
	seen := consume(topic, 0, at(0), 3)
	Same(seen[0].Key, []byte("k"))
	Same(seen[0].Value, []byte("v"))
	Same(seen[0].Headers, headers)
	Same(seen[0].Timestamp.UnixMilli(), 1_600_000_000_123)
	Same(seen[0].Attrs.TimestampType(), 0)
	Same(seen[1].Key, []byte{})
	Same(seen[1].Value, []byte{})
	Same(seen[2].Key, nil)
	return ""
}

func tombstone(topic string) string {
	create(topic, 1)
	produce([]*kgo.Record{{Topic: topic, Key: []byte("gone")}, {Topic: topic, Key: []byte("empty"), Value: []byte{}}})
	seen := consume(topic, 0, at(0), 2)
	Same(seen[0].Value, nil)
	Same(seen[1].Value, []byte{})
	return ""
}

func logAppendTime(topic string) string {
	create(topic, 1, "message.timestamp.type", "LogAppendTime")
	before := time.Now().UnixMilli()
	produce([]*kgo.Record{{Topic: topic, Value: []byte("v"), Timestamp: time.UnixMilli(1_600_000_000_123)}})
	seen := consume(topic, 0, at(0), 1)[0]
	Same(seen.Attrs.TimestampType(), 1)
	Same(before <= seen.Timestamp.UnixMilli() && seen.Timestamp.UnixMilli() <= time.Now().UnixMilli(), true)
	return ""
}

func bigMessage(topic string) string {
	create(topic, 1)
	value := random(900_000)
	produce([]*kgo.Record{{Topic: topic, Value: value}})
	Same(string(consume(topic, 0, at(0), 1)[0].Value) == string(value), true)
	return ""
}

func tooLarge(topic string) string {
	create(topic, 1)
	large := &kgo.Record{Topic: topic, Value: random(1_500_000)}
	producer := client(kgo.ProducerBatchMaxBytes(10_000_000), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	refused(producer.ProduceSync(always, large).FirstErr(), kerr.MessageTooLarge, "")
	size := "2000000"
	Check(alter(admin.AlterTopicConfigs, topic, kadm.AlterConfig{Name: "max.message.bytes", Value: &size}))
	Eventually(func() { Check(producer.ProduceSync(always, large).FirstErr()) })
	Same(large.Offset, 0)
	Same(string(consume(topic, 0, at(0), 1)[0].Value) == string(large.Value), true)
	return ""
}

// Reading

func consumeMiddle(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 100)), kgo.ProducerLinger(100*time.Millisecond))
	Same(values(consume(topic, 0, at(37), 63)), Numbers(37, 100))
	Same(values(consume(topic, 0, at(98), 2)), Numbers(98, 100))
	return ""
}

func longPoll(topic string) string {
	create(topic, 1)
	consumer := client(kgo.FetchMaxWait(20*time.Second), from(topic, 0, at(0)))
	defer consumer.Close()
	short, cancel := context.WithTimeout(always, time.Second)
	defer cancel()
	Same(consumer.PollFetches(short).NumRecords(), 0) // its fetch is at the broker now, and stays there
	produce(records(topic, []string{"late"}))
	soon, cancel := context.WithTimeout(always, 2*time.Second)
	defer cancel()
	Same(consumer.PollFetches(soon).NumRecords(), 1)
	return ""
}

func offsetOutOfRange(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 10)))
	consumer := client(from(topic, 0, at(1000)), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	defer consumer.Close()
	refused(consumer.PollFetches(always).Err(), kerr.OffsetOutOfRange, "")
	Same(values(consume(topic, 0, at(1000), 10, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))), Numbers(0, 10))
	return ""
}

func offsetsByTime(topic string) string {
	create(topic, 1)
	var sent []*kgo.Record
	for _, ms := range []int64{2_000, 1_000, 5_000, 3_000, 5_000, 4_000} {
		sent = append(sent, &kgo.Record{Topic: topic, Value: []byte("v"), Timestamp: time.UnixMilli(1_600_000_000_000 + ms)})
	}
	produce(sent)
	for timestamp, wanted := range map[int64]string{
		1_600_000_000_000: "0 1600000002000",
		1_600_000_002_001: "2 1600000005000",
		1_600_000_005_000: "2 1600000005000",
		1_600_000_005_001: "-1 -1",
		-2:                "0 -1",
		-1:                "6 -1",
		-3:                "2 1600000005000",
		-4:                "0 -1",
		-5:                "-1 -1",
	} {
		Same(listed(topic, timestamp, 0), wanted)
	}
	return ""
}

func readCommitted(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 100)))
	Same(values(consume(topic, 0, at(0), 100, kgo.FetchIsolationLevel(kgo.ReadCommitted()))), Numbers(0, 100))
	Same(listed(topic, -1, 1), "100 -1")
	return ""
}

func deleteRecords(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 100)))
	before := func(offset int64) kadm.DeleteRecordsResponse {
		var offsets kadm.Offsets
		offsets.AddOffset(topic, 0, offset, -1)
		return Must(admin.DeleteRecords(always, offsets))[topic][0]
	}
	seen := before(40)
	Check(seen.Err)
	Same(seen.LowWatermark, 40)
	Same(listed(topic, -2, 0), "40 -1")
	Same(values(consume(topic, 0, kgo.NewOffset().AtStart(), 60)), Numbers(40, 100))
	consumer := client(from(topic, 0, at(10)), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	defer consumer.Close()
	refused(consumer.PollFetches(always).Err(), kerr.OffsetOutOfRange, "")
	refused(before(101).Err, kerr.OffsetOutOfRange, "")
	Same(before(-1).LowWatermark, 100)
	return ""
}

func leaderEpoch(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 10)))
	seen := func(epoch int32) string {
		var request kadm.OffsetForLeaderEpochRequest
		request.Add(topic, 0, epoch)
		response := Must(admin.OffsetForLeaderEpoch(always, request))[topic][0]
		Check(response.Err)
		return fmt.Sprint(response.LeaderEpoch, " ", response.EndOffset)
	}
	Same(seen(0), "0 10")
	Same(seen(5), "-1 -1")
	return ""
}

// Operations

func logDirs(topic string) string {
	create(topic, 1)
	produce([]*kgo.Record{{Topic: topic, Value: random(10_000)}})
	seen := Must(admin.DescribeBrokerLogDirs(always, 1, nil))
	Same(len(seen), 1)
	directory := seen[os.Getenv("DATA")]
	Check(directory.Err)
	partition, there := directory.Topics.Lookup(topic, 0)
	Same(there, true)
	Same(10_000 < partition.Size && partition.Size < 11_000, true)
	Same(partition.OffsetLag, 0)
	Same(partition.IsFuture, false)
	return ""
}

func producers(topic string) string {
	create(topic, 1)
	produce(records(topic, Numbers(0, 1000)))
	var topics kadm.TopicsSet
	topics.Add(topic, 0)
	seen := Must(admin.DescribeProducers(always, topics))[topic].Partitions[0]
	Check(seen.Err)
	Same(len(seen.ActiveProducers), 1)
	for _, producer := range seen.ActiveProducers {
		Same(producer.LastSequence, 999)
		Same(producer.ProducerEpoch, 0)
		Same(producer.CurrentTxnStartOffset, -1)
		Same(producer.CoordinatorEpoch, -1)
	}
	return ""
}

func electLeaders(topic string) string {
	create(topic, 1)
	var topics kadm.TopicsSet
	topics.Add(topic, 0)
	seen := Must(admin.ElectLeaders(always, kadm.ElectPreferredReplica, topics))[topic][0]
	refused(seen.Err, kerr.ElectionNotNeeded, "")
	Same(seen.ErrMessage, "Leader election not needed for topic partition.")
	return ""
}

func reassignments(string) string {
	Same(len(Must(admin.ListPartitionReassignments(always, nil))), 0)
	return ""
}

// Restarts

func survives(how string) Scenario {
	return func(topic string) string {
		create(topic, 2, "retention.ms", "86400000")
		id := describe(topic).ID
		var sent []*kgo.Record
		for _, value := range Numbers(0, 100) {
			sent = append(sent, &kgo.Record{Topic: topic, Partition: 1, Key: []byte("k"), Value: []byte(value)})
		}
		produce(sent)
		Broker(how)
		Same(values(consume(topic, 1, at(0), 100)), Numbers(0, 100))
		Eventually(func() { Same(describe(topic).ID, id) })
		shows(topicConfigs, topic, "retention.ms", "86400000", kmsg.ConfigSourceDynamicTopicConfig)
		Same(produce([]*kgo.Record{{Topic: topic, Partition: 1, Value: []byte("more")}}), []int64{100})
		return ""
	}
}

// A producer at its defaults, which are idempotent, goes on through twenty kills of the broker.
func idempotentKills(topic string) string {
	create(topic, 1)
	var (
		lock         sync.Mutex
		acknowledged []uint32
		failed       []error
		producer     = client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
		stop         = make(chan struct{})
		stopped      = make(chan struct{})
	)
	go func() {
		defer close(stopped)
		for number := uint32(0); ; number++ {
			select {
			case <-stop:
				Check(producer.Flush(always))
				return
			default:
			}
			producer.Produce(always, &kgo.Record{Topic: topic, Value: binary.BigEndian.AppendUint32(nil, number)},
				func(record *kgo.Record, err error) {
					lock.Lock()
					defer lock.Unlock()
					if err != nil {
						failed = append(failed, err)
					} else {
						acknowledged = append(acknowledged, binary.BigEndian.Uint32(record.Value))
					}
				})
			if number%100 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	counts := func() (int, int) {
		lock.Lock()
		defer lock.Unlock()
		return len(acknowledged), len(failed)
	}
	for range 20 {
		before, _ := counts()
		for now, bad := counts(); now < before+2000 && bad == 0; now, bad = counts() {
			time.Sleep(10 * time.Millisecond)
		}
		Broker("kill")
	}
	close(stop)
	<-stopped
	producer.Close()

	var end int
	Eventually(func() { Must(fmt.Sscanf(listed(topic, -1, 0), "%d", &end)) })
	stored, twice, lost, disordered := map[uint32]bool{}, 0, 0, 0
	last := int64(-1)
	for _, record := range consume(topic, 0, at(0), end) {
		number := binary.BigEndian.Uint32(record.Value)
		if stored[number] {
			twice++
		}
		if int64(number) < last {
			disordered++
		}
		stored[number], last = true, int64(number)
	}
	for _, number := range acknowledged {
		if !stored[number] {
			lost++
		}
	}
	seen := fmt.Sprintf("%d acknowledged, %d failed, %d lost, %d twice, %d out of order", len(acknowledged), len(failed), lost, twice, disordered)
	if len(failed)+lost+twice+disordered != 0 {
		panic(fmt.Sprint(seen, " ", errors.Join(failed...)))
	}
	return seen
}

// What the scenarios are written in

// client asks for metadata as often as it likes: by default what it knows may be five seconds old.
func client(options ...kgo.Opt) *kgo.Client {
	base := []kgo.Opt{kgo.SeedBrokers(Bootstrap), kgo.MetadataMinAge(10 * time.Millisecond)}
	return Must(kgo.NewClient(append(base, options...)...))
}

func create(topic string, partitions int32, configs ...string) {
	set := map[string]*string{}
	for index := 0; index < len(configs); index += 2 {
		set[configs[index]] = &configs[index+1]
	}
	Must(admin.CreateTopic(always, partitions, 1, set, topic))
	Eventually(func() { describe(topic) })
}

func describe(topic string) kadm.TopicDetail {
	seen := Must(admin.ListTopics(always, topic))[topic]
	Check(seen.Err)
	return seen
}

func records(topic string, texts []string) []*kgo.Record {
	var records []*kgo.Record
	for _, text := range texts {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(text)})
	}
	return records
}

// produce returns the offsets, in the records' order.
func produce(records []*kgo.Record, options ...kgo.Opt) []int64 {
	producer := client(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, options...)...)
	defer producer.Close()
	Check(producer.ProduceSync(always, records...).FirstErr())
	var offsets []int64
	for _, record := range records {
		offsets = append(offsets, record.Offset)
	}
	return offsets
}

func at(offset int64) kgo.Offset {
	return kgo.NewOffset().At(offset)
}

func from(topic string, partition int32, offset kgo.Offset) kgo.Opt {
	return kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: offset}})
}

func consume(topic string, partition int32, offset kgo.Offset, count int, options ...kgo.Opt) []*kgo.Record {
	return read(count, append(options, from(topic, partition, offset))...)
}

func read(count int, options ...kgo.Opt) []*kgo.Record {
	consumer := client(append([]kgo.Opt{kgo.FetchMaxWait(50 * time.Millisecond)}, options...)...)
	defer consumer.Close()
	enough, cancel := context.WithTimeout(always, 40*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < count {
		fetches := consumer.PollFetches(enough)
		Check(fetches.Err())
		records = append(records, fetches.Records()...)
	}
	return records
}

func values(records []*kgo.Record) []string {
	var texts []string
	for _, record := range records {
		texts = append(texts, string(record.Value))
	}
	return texts
}

// listed is "offset timestamp".
func listed(topic string, timestamp int64, isolation int8) string {
	request := kmsg.NewPtrListOffsetsRequest()
	request.IsolationLevel = isolation
	asked, partition := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	partition.Timestamp = timestamp
	asked.Topic, asked.Partitions = topic, append(asked.Partitions, partition)
	request.Topics = append(request.Topics, asked)
	response := Must(request.RequestWith(always, client()))
	seen := response.Topics[0].Partitions[0]
	Check(kerr.ErrorForCode(seen.ErrorCode))
	return fmt.Sprint(seen.Offset, " ", seen.Timestamp)
}

func topicConfigs(name string) kadm.ResourceConfigs {
	return Must(admin.DescribeTopicConfigs(always, name))
}

func brokerConfigs(string) kadm.ResourceConfigs {
	return Must(admin.DescribeBrokerConfigs(always, 1))
}

func shows(described func(string) kadm.ResourceConfigs, name, key, value string, source kmsg.ConfigSource) {
	Eventually(func() {
		resource := Must(described(name).On(name, nil))
		Check(resource.Err)
		for _, config := range resource.Configs {
			if config.Key == key {
				Same(config.MaybeValue()+" "+config.Source.String(), value+" "+source.String())
				return
			}
		}
		panic("no " + key)
	})
}

func alter(with func(context.Context, []kadm.AlterConfig, ...string) (kadm.AlterConfigsResponses, error), name string, changes ...kadm.AlterConfig) error {
	response := Must(with(always, changes, name))[0]
	if response.Err == nil {
		return nil
	}
	return fmt.Errorf("%w|%s", response.Err, response.ErrMessage)
}

// refused fails unless err is the one wanted, with its text at the end if one is wanted.
func refused(err error, wanted *kerr.Error, text string) {
	if !errors.Is(err, wanted) || !strings.HasSuffix(err.Error(), text) {
		panic(fmt.Sprintf("got %v, wanted %s %s", err, wanted.Message, text))
	}
}

func random(size int) []byte {
	bytes := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(bytes)
	return bytes
}
