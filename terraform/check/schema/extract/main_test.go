package main

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley.internal/terraform/check/schema"
)

// pond is a module as the package has them, with one member of each kind.
const pond = `
export function pondFishToHclTerraform(struct?: PondFish): any {
  const attrs = {
    name: {
      value: cdktf.stringToHclTerraform(struct!.name),
      isBlock: false,
      type: "simple",
      storageClassType: "string",
    },
  };
}

export class PondFishOutputReference extends cdktf.ComplexObject {
  private isEmptyObject = false;

  // name - computed: false, optional: false, required: true
  private _name?: string;
  public get name() {
    return this.getStringAttribute('name');
  }
}
export class PondStatusOutputReference extends cdktf.ComplexObject {
  private isEmptyObject = false;

  // depth - computed: true, optional: false, required: false
  public get depth() {
    return this.getNumberAttribute('depth');
  }
}
export class Pond extends cdktf.TerraformResource {
  public static readonly tfResourceType = "google_pond";

  // labels - computed: false, optional: true, required: false
  private _labels?: { [key: string]: string };
  public get labels() {
    return this.getStringMapAttribute('labels');
  }

  // effective_labels - computed: true, optional: false, required: false
  private _effectiveLabels = new cdktf.StringMap(this, "effective_labels");
  public get effectiveLabels() {
    return this._effectiveLabels;
  }

  // project - computed: true, optional: true, required: false
  private _project?: string;
  public get project() {
    return this.getStringAttribute('project');
  }

  // zones - computed: false, optional: true, required: false
  private _zones?: string[];
  public get zones() {
    return cdktf.Fn.tolist(this.getListAttribute('zones'));
  }

  // status - computed: true, optional: false, required: false
  private _status = new PondStatusList(this, "status", false);
  public get status() {
    return this._status;
  }

  // fish - computed: false, optional: false, required: true
  private _fish = new PondFishList(this, "fish", true);
  public get fish() {
    return this._fish;
  }

  // guard - computed: false, optional: true, required: false
  private _guard = new PondFishOutputReference(this, "guard");
  public get guard() {
    return this._guard;
  }

  protected synthesizeHclAttributes(): { [name: string]: any } {
    const attrs = {
      fish: {
        value: cdktf.listMapperHcl(pondFishToHclTerraform, true)(this._fish.internalValue),
        isBlock: true,
        type: "set",
        storageClassType: "PondFishList",
      },
      guard: {
        value: pondFishToHclTerraform(this._guard.internalValue),
        isBlock: true,
        type: "list",
        storageClassType: "PondFishList",
      },
    };
  }
}
`

func TestEachKindOfMember(t *testing.T) {
	m, err := json.Marshal(map[string]any{"sourcesContent": []string{pond}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := typescript("x\n//# sourceMappingURL=data:application/json;base64," + base64.StdEncoding.EncodeToString(m) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := resourceOf(text, "google_pond")
	if err != nil {
		t.Fatal(err)
	}
	fish := &schema.Block{
		Attributes: map[string]schema.Attribute{"name": {Type: schema.Type(`"string"`), Required: true}},
		Blocks:     map[string]schema.Nested{},
	}
	want := &schema.Block{
		Attributes: map[string]schema.Attribute{
			"labels":           {Type: schema.Type(`["map","string"]`), Optional: true},
			"effective_labels": {Type: schema.Type(`["map","string"]`), Computed: true},
			"project":          {Type: schema.Type(`"string"`), Optional: true, Computed: true},
			"zones":            {Type: schema.Type(`["set","string"]`), Optional: true},
			"status":           {Type: schema.Type(`["list",["object",{"depth":"number"}]]`), Computed: true},
		},
		Blocks: map[string]schema.Nested{
			"fish":  {Nesting: "set", Min: 1, Block: fish},
			"guard": {Nesting: "list", Max: 1, Block: fish},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestWhatIsNotThereIsAnError(t *testing.T) {
	if _, err := resourceOf(pond, "google_lake"); err == nil {
		t.Error("a resource that the module does not have was found")
	}
	if _, err := typescript("no source map"); err == nil {
		t.Error("a module without its source was read")
	}
}
