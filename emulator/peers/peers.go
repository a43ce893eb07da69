// Package peers runs the integration tests of other people's clients against the embedded servers. README.md lists the
// clients with the results.
//
// Each Client names a Go module. The test of this package compiles the module's own tests from the module cache and runs
// them with the address of an embedded server. Every test must pass, apart from the listed differences. A listed test with
// another outcome fails the test of this package too, so the list is always complete and current.
//
// The package has its own go.mod, to keep what only the clients' tests need out of the root module.
package peers

import (
	_ "cloud.google.com/go/firestore" // go.mod keeps the version of each client
	_ "cloud.google.com/go/pubsub/v2"
)

// Client is a client library with integration tests.
type Client struct {
	// Package is the import path of the tests.
	Package string
	// Run is the -test.run pattern of the integration tests.
	Run string
	// Differences maps names of tests to outcomes other than a pass. A test that ran must have no subtests.
	Differences map[string]Difference
}

// Difference is an expected outcome other than a pass.
type Difference struct {
	// Outcome is "fail", "skip" (the client's own decision), or "not run".
	Outcome string
	Reason  string
}

// Reasons of several tests.
const (
	queryProfiling  = "The test skips itself with an emulator: no emulator explains queries."
	partitions      = "PartitionQuery is not implemented."
	sameMillisecond = "Two commits must get different server timestamps. Their precision is a millisecond, and two commits often take less."
)

// Clients lists the tested clients.
var Clients = []Client{
	{
		Package: "cloud.google.com/go/firestore",
		Run:     "^TestIntegration_",
		Differences: map[string]Difference{
			"TestIntegration_DefaultDB/AggregationQueries_WithRunOptions": {"skip", queryProfiling},
			"TestIntegration_DefaultDB/GetAll_WithRunOptions":             {"skip", queryProfiling},
			"TestIntegration_DefaultDB/Query_WithRunOptions":              {"skip", queryProfiling},
			"TestIntegration_DefaultDB/RunTransaction_WithRunOptions":     {"skip", queryProfiling},
			"TestIntegration_EnterpriseDB": {"skip",
				"The test needs a database of the Enterprise edition; the server follows the Standard edition."},

			"TestIntegration_DefaultDB/ColGroupRefPartitions":            {"fail", partitions},
			"TestIntegration_DefaultDB/ColGroupRefPartitionsLarge":       {"fail", partitions},
			"TestIntegration_DefaultDB/Serialize_Deserialize_WatchQuery": {"fail", partitions},
			"TestIntegration_DefaultDB/QueryDocuments": {"fail",
				"The last query must fail without an index; the server needs no index."},
			"TestIntegration_DefaultDB/NewClientWithDatabase": {"fail",
				"The client must refuse a missing credentials file; it reads no credentials for an emulator."},

			"TestIntegration_DefaultDB/FindNearest": {"not run",
				"Vector search is not implemented, and the test repeats each query for 25 seconds."},
			"TestIntegration_DefaultDB/MergeNestedServerTimestamp": {"not run", sameMillisecond},
			"TestIntegration_DefaultDB/MergeServerTimestamp":       {"not run", sameMillisecond},
		},
	},
	{
		Package: "cloud.google.com/go/pubsub/v2",
		Run:     "^TestIntegration_",
		Differences: map[string]Difference{
			"TestIntegration_DetectProjectID": {"skip", "The test always skips itself."},
		},
	},
}
