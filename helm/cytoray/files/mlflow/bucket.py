"""Create a bucket in an S3 store that has just started; an existing bucket does not change."""

import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

PATIENCE = 300  # timeout in seconds for the store


def make_bucket(name: str, patience: float = PATIENCE) -> bool:
    """Create the bucket; returns whether it was missing. The address and the keys come from the environment."""
    store = boto3.client("s3")
    deadline = time.monotonic() + patience
    while True:
        try:
            if name in {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}:
                return False
            store.create_bucket(Bucket=name)
            return True
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise
            print(f"not ready: {error}", file=sys.stderr)
            time.sleep(2)


if __name__ == "__main__":
    print(f"created {sys.argv[1]}" if make_bucket(sys.argv[1]) else f"{sys.argv[1]} exists")
