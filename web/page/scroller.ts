// Follows the end of the chat until the reader scrolls up, and again when they come back to the end.

const NEAR = 40;

export class Scroller {
  readonly #element: HTMLElement;
  #following = false;
  #top = 0;

  constructor(element: HTMLElement, content: HTMLElement, toEnd: HTMLElement) {
    this.#element = element;
    element.addEventListener(
      "scroll",
      () => {
        const { scrollTop, scrollHeight, clientHeight } = element;
        const atEnd = scrollHeight - scrollTop - clientHeight <= NEAR;
        if (atEnd && scrollTop > this.#top) {
          this.#following = true;
        } else if (!atEnd && scrollTop < this.#top) {
          this.#following = false;
        }
        this.#top = scrollTop;
        toEnd.hidden = this.#following || atEnd;
      },
      { passive: true },
    );
    // At the end already, a turn of the wheel upwards must win over the next token.
    element.addEventListener(
      "wheel",
      ({ deltaY }) => {
        if (deltaY < 0 && element.scrollTop > 0) {
          this.#following = false;
        }
      },
      { passive: true },
    );
    toEnd.addEventListener("click", () => this.follow());
    const observer = new ResizeObserver(() => this.#keep());
    observer.observe(content);
    observer.observe(element);
  }

  /** Goes to the end and stays there. */
  follow(): void {
    this.#following = true;
    this.#keep();
  }

  /** Shows the beginning. */
  toStart(): void {
    this.#following = false;
    this.#element.scrollTop = 0;
  }

  #keep(): void {
    if (this.#following) {
      this.#element.scrollTop = this.#element.scrollHeight;
    }
  }
}
