package topology_test

import (
	"fmt"

	"parley.internal/shared/topology"
)

func ExamplePrefix() {
	staging, err := topology.ParsePrefix("staging.")
	if err != nil {
		fmt.Println(err)
		return
	}
	name := staging.Topic("my-project", topology.Ingress)
	fmt.Println(name)
	fmt.Println(staging.LookupTopic(name.String()))
	fmt.Println(staging.TopicOf("staging.personality"))
	// Output:
	// projects/my-project/topics/staging.internal.ingress.v1
	// internal.ingress.v1 true
	// internal.user.enriched.v1 true
}

func ExampleGateway() {
	s := topology.Gateway("a1b2")
	fmt.Println(s.Name, "reads", s.Topic)
	fmt.Println(s.Filter)
	// Output:
	// gateway.a1b2 reads internal.egress.v1
	// attributes.route = "broadcast" OR attributes.instance = "a1b2"
}
