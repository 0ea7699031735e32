/** A map that forgets what was not used for the longest time once it holds more than `limit`. */
export class Recent<Item> {
  private readonly items = new Map<string, Item>();
  private held = 0;

  constructor(
    private readonly limit: number,
    private readonly size: (item: Item) => number,
  ) {}

  get(key: string): Item | undefined {
    const item = this.items.get(key);
    if (item !== undefined) {
      // A map lists its keys in the order of their insertion: the last is the newest.
      this.items.delete(key);
      this.items.set(key, item);
    }
    return item;
  }

  set(key: string, item: Item): void {
    this.delete(key);
    this.items.set(key, item);
    this.held += this.size(item);
    for (const oldest of this.items.keys()) {
      if (this.held <= this.limit || oldest === key) break;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    const item = this.items.get(key);
    if (item === undefined) return;
    this.items.delete(key);
    this.held -= this.size(item);
  }
}
