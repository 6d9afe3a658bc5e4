// Samples over time: one slider; each run shows its newest picture up to the step.
{
  const slider = document.getElementById("samples-step");
  if (slider) {
    const steps = slider.dataset.steps.split(" ").map(Number);
    const show = () => {
      const step = steps[slider.value];
      document.getElementById("samples-shown").textContent = `step ${step}`;
      slider.setAttribute("aria-valuetext", `step ${step}`);
      for (const frames of document.querySelectorAll(".frames")) {
        const images = [...frames.querySelectorAll("img")];
        const past = images.filter((image) => Number(image.dataset.step) <= step);
        const chosen = past.length ? past[past.length - 1] : images[0];
        for (const image of images) image.hidden = image !== chosen;
        frames.parentElement.querySelector(".at").textContent = `step ${chosen.dataset.step}`;
      }
    };
    slider.addEventListener("input", show);
    show(); // A browser that goes back to the page keeps the slider's place.
  }
}
