package firestore_test

import "google.golang.org/grpc/codes"

// A difference is a deviation of Google's emulator from the service's documentation. This server follows the
// documentation.
type difference struct {
	google any    // the result of Google's emulator
	page   string // the documentation
}

const (
	rpcReference = "https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1"
	limitsPage   = "https://firebase.google.com/docs/firestore/quotas#limits"
)

const noDescendingKeys = "error: rpc error: code = FailedPrecondition desc = Firestore does not support descending key scans"

// differences maps names of test cases to differences.
var differences = map[string]difference{
	"write: another database":            {codes.OK, rpcReference + "#google.firestore.v1.CommitRequest"},
	"write: a mask with a reserved name": {codes.OK, rpcReference + "#google.firestore.v1.Write"},

	// "Maximum API request size: 10 MiB"; the emulator's gRPC stops at 4 MiB.
	"write: a commit of 9 MiB":  {codes.ResourceExhausted, limitsPage},
	"write: a commit of 11 MiB": {codes.ResourceExhausted, limitsPage},

	// "A minimum of one and maximum of five aggregations per query."
	"aggregation: six": {codes.Unknown, rpcReference + "#google.firestore.v1.StructuredAggregationQuery"},
	// "Must be greater than zero when present."
	"aggregation: up to zero": {codes.OK, rpcReference + "#google.firestore.v1.StructuredAggregationQuery"},

	// The page token of an ordered list works like any other.
	"list: ordered in pages, descending": {"rpc error: code = Unknown desc = ", rpcReference + "#google.firestore.v1.ListDocumentsRequest"},

	// "Requires: At least one filter is present."
	"query: an empty composite filter": {codes.OK, rpcReference + "#google.firestore.v1.StructuredQuery.CompositeFilter"},
	// "ORDER BY a DESC becomes ORDER BY a DESC, __name__ DESC": keys can be in descending order.
	"query: by name, descending":     {noDescendingKeys, rpcReference + "#google.firestore.v1.StructuredQuery"},
	"query: names below, descending": {noDescendingKeys, rpcReference + "#google.firestore.v1.StructuredQuery"},
}

// expect returns the expected code of the backend. want is the documented code.
func (b *backend) expect(what string, want codes.Code) codes.Code {
	if d, ok := differences[what]; ok && b.isGoogle() {
		return d.google.(codes.Code)
	}
	return want
}

func (b *backend) expectString(what, want string) string {
	if d, ok := differences[what]; ok && b.isGoogle() {
		return d.google.(string)
	}
	return want
}
