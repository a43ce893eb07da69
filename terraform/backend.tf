# The state is stored in a bucket of yours (README.md, step 2). The bucket is an argument of terraform init:
#
#   terraform init -backend-config="bucket=PROJECT-terraform" -backend-config="prefix=parley"
terraform {
  backend "gcs" {}
}
