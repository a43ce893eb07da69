package digest_test

import (
	"fmt"
	"testing"

	"parley.internal/shared/digest"
)

func ExampleOf() {
	fmt.Println(digest.Of("delivery", "c1", "personality"))
	// Output: ad3c3381110746becbe3a34d1d688253
}

func TestListsThatAreSplitDifferentlyHaveDifferentHashes(t *testing.T) {
	lists := [][]string{nil, {""}, {"", ""}, {"abc"}, {"ab", "c"}, {"a", "bc"}, {"a", "b", "c"}, {"1:a"}, {"c", "b", "a"}}
	seen := map[string][]string{}
	for _, l := range lists {
		h := digest.Of(l...)
		if len(h) != 32 {
			t.Errorf("Of(%q) has %d digits; want 32", l, len(h))
		}
		if other, ok := seen[h]; ok {
			t.Errorf("Of(%q) = Of(%q)", l, other)
		}
		seen[h] = l
	}
}
